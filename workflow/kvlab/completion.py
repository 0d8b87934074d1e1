"""Completion for bash and zsh: one script, made from the command line's own parser."""

from __future__ import annotations

import argparse

SCRIPT = """\
# kvlab's commands and options, for bash and zsh. Put into ~/.bashrc or ~/.zshrc:  eval "$(kvlab completion)"
[ -z "${{ZSH_VERSION:-}}" ] || {{ autoload -U +X compinit bashcompinit && compinit && bashcompinit; }}
_kvlab() {{
    local word=${{COMP_WORDS[COMP_CWORD]}} words=
    if [ "$COMP_CWORD" -eq 1 ]; then
        words="{commands}"
    else
        case ${{COMP_WORDS[1]}} in
{cases}
        esac
    fi
    COMPREPLY=()
    if [ "$COMP_CWORD" -eq 1 ] || [ "${{word#-}}" != "$word" ]; then
        COMPREPLY=($(compgen -W "$words" -- "$word"))
    fi
}}
complete -o default -o bashdefault -F _kvlab kvlab
"""


def script(parser: argparse.ArgumentParser) -> str:
    """The script to be evaluated; arguments that are no options complete as file names."""
    (choices,) = (action for action in parser._actions if isinstance(action, argparse._SubParsersAction))
    cases = [
        f'            {name}) words="{" ".join(option for a in sub._actions for option in a.option_strings)}" ;;'
        for name, sub in choices.choices.items()
    ]
    options = [option for action in parser._actions for option in action.option_strings]
    return SCRIPT.format(commands=" ".join([*choices.choices, *options]), cases="\n".join(cases))
