// Language, theme, the choice of a workload, the address, the filter. The page is complete without any of it.
"use strict";
const page = {
  root: document.documentElement,
  words: JSON.parse(document.getElementById("words-data").textContent),
  get language() { return this.root.dataset.lang; },
  // One text for all languages, or [en, zh].
  pick(text) { return Array.isArray(text) ? text[this.language === "zh" ? 1 : 0] : text; },
  fill(text, values) { return text.replace(/\{(\w+)\}/g, (_, name) => values[name]); },
  all(selector, within = document) { return [...within.querySelectorAll(selector)]; },
  // A text is set where it differs: setting it lays the page out anew.
  tell(element, text) { if (element.textContent !== text) element.textContent = text; },

  // What the reader has chosen is kept in the address after the #, so that a reload and a copied link keep it: a page
  // that was opened as a file may change no other part of its address. A place on the page comes first.
  get asked() { return new URLSearchParams(location.hash.slice(1)); },
  get place() { return decodeURIComponent(location.hash.slice(1).split("&").find((part) => part && !part.includes("=")) || ""); },
  keep(changes, place = this.place) {
    const now = this.asked;
    if (place) now.delete(place);
    for (const [name, value] of Object.entries(changes)) {
      if (value === null) now.delete(name); else now.set(name, value);
    }
    const parts = [encodeURIComponent(place), ...[...now].filter(([, value]) => value !== "").map(([name, value]) => `${name}=${encodeURIComponent(value)}`)];
    const text = parts.filter(Boolean).join("&");
    this.kept = new URLSearchParams(text);
    history.replaceState(null, "", text ? `#${text}` : location.pathname + location.search);
  },
};

(() => {
  const { root, all } = page;
  const first = { language: page.language, workload: all("[data-set-workload][aria-pressed=true]")[0]?.dataset.setWorkload };

  function setLanguage(language) {
    root.dataset.lang = language;
    root.lang = language === "zh" ? "zh-Hans" : language;
    for (const button of all("[data-set-lang]")) {
      button.setAttribute("aria-pressed", String(button.dataset.setLang === language));
    }
    for (const element of all("[data-en]")) element.textContent = element.dataset[language];
    document.title = document.querySelector("title").textContent;
    page.keep({ lang: language === first.language ? null : language });
    document.dispatchEvent(new Event("kvlab:language"));
  }

  // Content above may change its height; the element that was pressed stays in place.
  function keeping(element, change) {
    const before = element.getBoundingClientRect().top;
    change();
    window.scrollBy({ top: element.getBoundingClientRect().top - before, behavior: "instant" });
  }

  // One choice for the whole page, the pool view too.
  page.setWorkload = (name) => {
    if (!all("[data-set-workload]").some((button) => button.dataset.setWorkload === name)) return;
    for (const block of all("[data-workload]")) block.classList.toggle("off", block.dataset.workload !== name);
    for (const button of all("[data-set-workload]")) {
      button.setAttribute("aria-pressed", String(button.dataset.setWorkload === name));
    }
    page.keep({ workload: name === first.workload ? null : name });
    document.dispatchEvent(new CustomEvent("kvlab:workload", { detail: name }));
  };

  function dark() {
    const theme = root.dataset.theme;
    return theme ? theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  }

  document.addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (!button) return;
    if (button.dataset.setLang) keeping(button, () => setLanguage(button.dataset.setLang));
    if (button.dataset.setWorkload) keeping(button, () => page.setWorkload(button.dataset.setWorkload));
    if (button.id === "theme") {
      root.dataset.theme = dark() ? "light" : "dark";
      try { localStorage.setItem("kvlab-theme", root.dataset.theme); } catch (error) { /* no storage */ }
      page.keep({ theme: root.dataset.theme });
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
  if (filter) {
    filter.addEventListener("input", find);
    document.getElementById("filter-count").textContent = rows.length;
  }

  // --- by keyboard: one stop a section, arrows from number to number ----------------------------------------------
  const seen_ = (element) => element.offsetParent !== null;
  const numbers = (section) => all(".q", section).filter(seen_);
  function rove() {
    for (const section of all("main section")) {
      const mine = all(".q", section);
      const stop = mine.find((one) => one.tabIndex === 0 && one.dataset.stop && seen_(one)) || mine.find(seen_);
      for (const one of mine) one.tabIndex = one === stop ? 0 : -1;
      if (stop) stop.dataset.stop = "1";
    }
  }
  document.addEventListener("keydown", (event) => {
    const here = document.activeElement;
    if (!here?.classList.contains("q") || event.altKey || event.ctrlKey || event.metaKey) return;
    const mine = numbers(here.closest("section")), at = mine.indexOf(here);
    const to = { ArrowRight: at + 1, ArrowDown: at + 1, ArrowLeft: at - 1, ArrowUp: at - 1, Home: 0, End: mine.length - 1 }[event.key];
    if (to === undefined || !mine[to]) return;
    event.preventDefault();
    mine[to].focus();
  });
  document.addEventListener("focusin", (event) => {
    if (!event.target.classList.contains("q")) return;
    const section = event.target.closest("section");
    for (const one of all(".q", section)) { one.tabIndex = one === event.target ? 0 : -1; delete one.dataset.stop; }
    event.target.dataset.stop = "1";
  });
  for (const group of all("details")) group.addEventListener("toggle", rove);

  // --- what scrolls sideways is marked, and can be focused -------------------------------------------------------
  function scrolls() {
    for (const region of all(".scroll, .exchange bdi")) {
      const more = region.scrollWidth > region.clientWidth + 1 || region.scrollHeight > region.clientHeight + 1;
      region.classList.toggle("scrolls", more);
      region.dataset.says = page.words[page.language].take.scrolls;
      if (more) region.tabIndex = 0; else region.removeAttribute("tabindex");
    }
  }
  const list = document.querySelector(".contents ol");
  function fade() {
    list.classList.toggle("more-left", list.scrollLeft > 2);
    list.classList.toggle("more-right", list.scrollLeft + list.clientWidth < list.scrollWidth - 2);
  }
  list.addEventListener("scroll", fade, { passive: true });
  new ResizeObserver(() => { scrolls(); fade(); }).observe(document.querySelector("main"));

  // --- where the reader is --------------------------------------------------------------------------------------
  const links = new Map(all(".contents a").map((link) => [link.hash.slice(1), link]));
  const seen = new IntersectionObserver((entries) => {
    for (const entry of entries) {
      if (!entry.isIntersecting) continue;
      for (const link of links.values()) link.removeAttribute("aria-current");
      const here = links.get(entry.target.id);
      if (!here) continue;
      here.setAttribute("aria-current", "true");
      const { left, right } = here.getBoundingClientRect(), frame = list.getBoundingClientRect();
      if (left < frame.left + 40) list.scrollLeft += left - frame.left - 40;
      else if (right > frame.right - 40) list.scrollLeft += right - frame.right + 40;
    }
  }, { rootMargin: "-20% 0px -70% 0px" });
  for (const id of links.keys()) seen.observe(document.getElementById(id));

  // --- the address --------------------------------------------------------------------------------------------------
  function arrive() {
    const asked = page.asked;
    const language = asked.get("lang") || new URLSearchParams(location.search).get("lang");
    if (language && language !== page.language && page.words[language]) setLanguage(language);
    if (asked.get("workload")) page.setWorkload(asked.get("workload"));
    const place = page.place && document.getElementById(page.place);
    if (place && location.hash.includes("&")) place.scrollIntoView({ behavior: "instant" });
  }
  addEventListener("hashchange", () => { // a link within the page: what was chosen stays in the address
    if (page.place && page.kept) page.keep(Object.fromEntries([...page.kept].filter(([, value]) => value !== "")));
  });
  for (const event of ["kvlab:language", "kvlab:workload"]) document.addEventListener(event, () => { rove(); scrolls(); fade(); });
  arrive();
  rove();
})();
