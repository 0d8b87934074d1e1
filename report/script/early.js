(() => {
  const root = document.documentElement;
  root.classList.add("js");
  try {
    const theme = localStorage.getItem("kvlab-theme");
    if (theme) root.dataset.theme = theme;
  } catch (error) { /* a file opened from a mail may have no storage */ }
})();
