// The trail of a number: its formula and sources, down to the rows of the raw logs. Everything is set as text, never as HTML.
(() => {
  const data = JSON.parse(document.getElementById("trail-data").textContent);
  const dialog = document.getElementById("trail");
  const body = document.getElementById("trail-body");
  const words = () => page.words[page.language].trail;
  let shown = null;

  function element(name, attributes = {}, ...children) {
    const made = document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    made.append(...children);
    return made;
  }

  function section(title, ...children) {
    return element("section", {}, element("h3", {}, title), ...children);
  }

  // Repeats as dots on a line, the interval as a bar beneath them.
  function strip(entry) {
    const values = [...entry.e, ...(entry.ix || [])];
    const low = Math.min(...values), reach = Math.max(...values) - low || 1;
    const at = (value) => `${4 + 92 * (value - low) / reach}%`;
    const line = element("div", { class: "strip", "aria-hidden": "true" });
    if (entry.ix) {
      const bar = element("i", { class: "between" });
      bar.style.left = at(entry.ix[0]);
      bar.style.width = `${92 * (entry.ix[1] - entry.ix[0]) / reach}%`;
      line.append(bar);
    }
    for (const value of entry.e) {
      const dot = element("i", { class: "dot" });
      dot.style.left = at(value);
      line.append(dot);
    }
    return line;
  }

  function rowsText(rows) {
    return words()[`rows_${rows}`] || rows;
  }

  function sources(entry, isFact) {
    const head = element("tr", {}, ...[words().file, isFact ? words().key : words().rows, words().digest].map((text) => element("th", { scope: "col" }, text)));
    const lines = data.sources[entry.s].map(([file, rows]) => {
      const [path, sha256] = data.files[file];
      return element("tr", {},
        element("td", {}, element("code", {}, path)),
        element("td", {}, isFact ? element("code", {}, rows) : rowsText(rows)),
        element("td", {}, element("code", { class: "digest" }, sha256)));
    });
    return element("div", { class: "scroll", role: "region", tabindex: "0", "aria-label": words().sources },
      element("table", { class: "sources" }, element("thead", {}, head), element("tbody", {}, ...lines)));
  }

  function command() {
    const text = data.command;
    const copy = element("button", { type: "button" }, words().copy);
    copy.addEventListener("click", async () => {
      try {
        await navigator.clipboard.writeText(text);
        copy.textContent = words().copied;
      } catch (error) { // no clipboard for this page: select it instead
        getSelection().selectAllChildren(copy.previousSibling);
      }
    });
    return element("div", { class: "command" }, element("code", {}, text), copy);
  }

  function given([option, value]) {
    return element("div", {}, element("dt", {}, element("code", {}, option)), element("dd", {}, value));
  }

  function name(id) {
    const names = page.words[page.language].names;
    const parts = id.split(".");
    for (let at = 1; at < parts.length; at += 1) {
      const found = names[parts.slice(at).join(".")];
      if (found) return found;
    }
    return id;
  }

  function fill(id, isFact) {
    const entry = (isFact ? data.facts : data.quantities)[id];
    if (!entry) return false;
    shown = [id, isFact];
    document.getElementById("trail-id").textContent = id;
    document.getElementById("trail-name").textContent = isFact ? id.split("#")[1] : name(id);
    const parts = [element("p", { class: "trail-value" }, page.pick(entry.v))];
    if (entry.w !== undefined) parts.push(section(words().why, element("p", {}, page.pick(entry.w))));
    if (!isFact) {
      parts.push(section(words().formula, element("p", { class: "formula" }, page.pick(data.formulas[entry.f]))));
      const facts = element("dl", { class: "trail-facts" });
      const fact = (label, value, key) => facts.append(element("div", {}, element("dt", {}, label), element("dd", { "data-trail": key }, value)));
      fact(words().n, String(entry.n), "n");
      if (entry.x !== undefined) {
        fact(words().interval, entry.i !== undefined ? page.pick(entry.i) : entry.n < 3 ? words().no_interval : words().no_interval_here, "interval");
        fact(words().exact, entry.x, "exact");
      }
      parts.push(facts);
      if (entry.e) parts.push(section(words().samples, strip(entry), element("p", { class: "samples" }, entry.et.map((text) => page.pick(text)).join(" · "))));
    }
    parts.push(section(words().command, command()));
    if (data.inputs) parts.push(section(words().inputs, element("dl", { class: "trail-facts" }, ...data.inputs.map(given))));
    else parts.push(section(words().sources, sources(entry, isFact)));
    body.replaceChildren(...parts);
    return true;
  }

  function open(id, isFact) {
    if (!fill(id, isFact)) return;
    if (!dialog.open) dialog.showModal();
    body.scrollTop = 0;
    page.keep({ q: isFact ? null : id, f: isFact ? id : null });
  }

  document.addEventListener("click", (event) => {
    const pressed = event.target.closest("[data-q], [data-f]");
    if (pressed) open(pressed.dataset.q || pressed.dataset.f, !pressed.dataset.q);
    else if (event.target === dialog) dialog.close(); // the backdrop
  });
  document.getElementById("trail-close").addEventListener("click", () => dialog.close());
  dialog.addEventListener("close", () => {
    shown = null;
    page.keep({ q: null, f: null });
  });
  document.addEventListener("kvlab:language", () => { if (shown) fill(...shown); });

  function fromAddress() {
    for (const kind of ["q", "f"]) if (page.asked.get(kind)) open(page.asked.get(kind), kind === "f");
  }
  addEventListener("hashchange", fromAddress);
  fromAddress();
})();
