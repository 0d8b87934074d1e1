// Files of this page's numbers, made on request: all quantities, and a table as it is shown.
(() => {
  const data = JSON.parse(document.getElementById("trail-data").textContent);
  const cell = (value) => (/[",\n]/.test(value) ? `"${value.replaceAll('"', '""')}"` : value);
  const csv = (rows) => rows.map((row) => row.map((one) => cell(String(one ?? ""))).join(",")).join("\r\n") + "\r\n";
  const address = (kind, text) => `data:${kind};charset=utf-8,${encodeURIComponent(text)}`;
  const both = (text) => (Array.isArray(text) ? text[0] : text);

  function quantity(id) {
    const entry = data.quantities[id];
    const sources = data.sources[entry.s].map(([file, rows]) => ({ file: data.files[file][0], sha256: data.files[file][1], rows }));
    return {
      id, value: entry.x === undefined ? null : Number(entry.x), unit: data.units[entry.u], n: entry.n,
      interval: entry.ix || null, samples: entry.e || [], why_none: entry.w === undefined ? null : both(entry.w),
      formula: both(data.formulas[entry.f]), sources,
    };
  }

  const make = {
    json: () => address("application/json", JSON.stringify({ run: data.run, quantities: Object.keys(data.quantities).map(quantity) }, null, 1)),
    csv: () => address("text/csv", csv([
      ["id", "value", "unit", "n", "low", "high", "formula"],
      ...Object.keys(data.quantities).map(quantity).map((q) => [q.id, q.value, q.unit, q.n, q.interval?.[0], q.interval?.[1], q.formula]),
    ])),
  };

  // A table: a quantity's exact value, else the words that are shown; a column of one unit names it in its head.
  const shown = (element) => {
    const copy = element.cloneNode(true);
    for (const other of page.all(`.${page.language === "zh" ? "en" : "zh"}, .visually-hidden`, copy)) other.remove();
    return copy.textContent.replace(/\s+/g, " ").trim();
  };
  function table(element) {
    const of = (one) => page.all("[data-q]", one).map((q) => q.dataset.q).find((id) => data.quantities[id]);
    const rows = [...element.rows].map((row) => [...row.cells]);
    const text = rows.map((row) => row.map((one) => (of(one) ? data.quantities[of(one)].x ?? "" : shown(one))));
    for (let column = 0; column < text[0].length; column += 1) {
      const units = new Set(rows.slice(1).map((row) => row[column] && of(row[column])).filter(Boolean).map((id) => data.units[data.quantities[id].u]));
      if (units.size === 1) text[0][column] += ` [${[...units][0]}]`;
    }
    return address("text/csv", csv(text));
  }

  for (const link of page.all("[data-take]")) {
    link.addEventListener("click", () => { link.href = make[link.dataset.take](); });
  }
  for (const element of page.all("main .scroll > table")) {
    const link = document.createElement("a"), line = document.createElement("p");
    const name = element.caption ? element.caption.id || element.parentNode.id : "table";
    link.href = "#take";
    link.download = `${data.run}-${name}.csv`;
    link.className = "take-table";
    const say = () => {
      link.textContent = page.words[page.language].take.csv_short;
      link.setAttribute("aria-label", page.fill(page.words[page.language].take.table, { name: element.caption ? shown(element.caption) : name }));
    };
    say();
    document.addEventListener("kvlab:language", say);
    link.addEventListener("click", () => { link.href = table(element); });
    line.className = "take-line on-screen";
    line.append(link);
    element.parentNode.after(line);
  }
})();
