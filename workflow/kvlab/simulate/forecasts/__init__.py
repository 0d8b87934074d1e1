"""Time: step times fitted on a run, other runs predicted from them, and the predictions checked."""
