(() => {
  const root = document.documentElement;
  root.classList.add("js");
  const asked = new URLSearchParams(location.hash.slice(1)).get("theme");
  if (asked === "light" || asked === "dark") root.dataset.theme = asked;
  else {
    try {
      const theme = localStorage.getItem("kvlab-theme");
      if (theme) root.dataset.theme = theme;
    } catch (error) { /* a file opened from a mail may have no storage */ }
  }
})();
