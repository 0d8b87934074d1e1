// Language, theme, the choice of a workload, the filter. The page is complete without any of it.
"use strict";
const page = {
  root: document.documentElement,
  words: JSON.parse(document.getElementById("words-data").textContent),
  get language() { return this.root.dataset.lang; },
  // One text for all languages, or [en, zh].
  pick(text) { return Array.isArray(text) ? text[this.language === "zh" ? 1 : 0] : text; },
  fill(text, values) { return text.replace(/\{(\w+)\}/g, (_, name) => values[name]); },
};

(() => {
  const { root } = page;
  const all = (selector) => [...document.querySelectorAll(selector)];

  function setLanguage(language) {
    root.dataset.lang = language;
    root.lang = language === "zh" ? "zh-Hans" : language;
    for (const button of all("[data-set-lang]")) {
      button.setAttribute("aria-pressed", String(button.dataset.setLang === language));
    }
    for (const element of all("[data-en]")) element.textContent = element.dataset[language];
    document.title = document.querySelector("title").textContent;
    document.dispatchEvent(new Event("kvlab:language"));
  }

  // What stands above may change its height; what the reader pressed stays where it is.
  function keeping(element, change) {
    const before = element.getBoundingClientRect().top;
    change();
    window.scrollBy({ top: element.getBoundingClientRect().top - before, behavior: "instant" });
  }

  function setWorkload(name) {
    for (const block of all("[data-workload]")) block.classList.toggle("off", block.dataset.workload !== name);
    for (const button of all("[data-set-workload]")) {
      button.setAttribute("aria-pressed", String(button.dataset.setWorkload === name));
    }
  }

  function dark() {
    const theme = root.dataset.theme;
    return theme ? theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  }

  document.addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (!button) return;
    if (button.dataset.setLang) keeping(button, () => setLanguage(button.dataset.setLang));
    if (button.dataset.setWorkload) keeping(button, () => setWorkload(button.dataset.setWorkload));
    if (button.id === "theme") {
      root.dataset.theme = dark() ? "light" : "dark";
      try { localStorage.setItem("kvlab-theme", root.dataset.theme); } catch (error) { /* no storage */ }
      document.dispatchEvent(new Event("kvlab:theme"));
    }
  });
  for (const query of ["(prefers-color-scheme: dark)", "print"]) {
    matchMedia(query).addEventListener("change", () => document.dispatchEvent(new Event("kvlab:theme")));
  }

  // --- every quantity -------------------------------------------------------------------------------------------
  const filter = document.getElementById("filter");
  const rows = all(".quantities [data-name]").map((row) => [row, `${row.dataset.name} ${row.textContent}`.toLowerCase()]);
  const groups = all(".quantities");
  function find() {
    const wanted = filter.value.trim().toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const [row, text] of rows) {
      row.hidden = !wanted.every((word) => text.includes(word));
      shown += row.hidden ? 0 : 1;
    }
    for (const group of groups) {
      group.hidden = !group.querySelector("[data-name]:not([hidden])");
      group.open = wanted.length > 0;
    }
    document.getElementById("filter-count").textContent = shown;
    document.getElementById("filter-none").hidden = shown > 0;
  }
  filter.addEventListener("input", find);
  document.getElementById("filter-count").textContent = rows.length;

  // --- where the reader is --------------------------------------------------------------------------------------
  const links = new Map(all(".contents a").map((link) => [link.hash.slice(1), link]));
  const seen = new IntersectionObserver((entries) => {
    for (const entry of entries) {
      if (!entry.isIntersecting) continue;
      for (const link of links.values()) link.removeAttribute("aria-current");
      links.get(entry.target.id)?.setAttribute("aria-current", "true");
    }
  }, { rootMargin: "-20% 0px -70% 0px" });
  for (const id of links.keys()) seen.observe(document.getElementById(id));

  const asked = new URLSearchParams(location.search).get("lang");
  if (asked && asked !== page.language && page.words[asked]) setLanguage(asked);
})();
