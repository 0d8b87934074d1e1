// What if: pools, blocks, lengths and rates that the simulator computed beforehand. Nothing is simulated here.
(() => {
  const view = document.getElementById("what-if");
  if (!view) return;
  const grid = JSON.parse(document.getElementById("grid-data").textContent);
  const selects = Object.fromEntries(page.all("select", view).map((one) => [one.dataset.axis, one]));
  const words = () => page.words[page.language].plan.if;
  const number = (value, places) => new Intl.NumberFormat(page.root.lang, { maximumFractionDigits: places }).format(value);

  function fill() {
    for (const [axis, select] of Object.entries(selects)) {
      const chosen = select.value || JSON.stringify(grid.own[axis]);
      select.replaceChildren(...grid.axes[axis].map((value) => new Option(value === null ? words().full : number(value, 1), JSON.stringify(value))));
      select.value = chosen;
    }
  }

  // A paged pool was computed for every block and rate at the run's own maximum length, a contiguous one for every
  // maximum length and rate: neither depends on the other's choice.
  function point(policy) {
    const asked = Object.fromEntries(Object.entries(selects).map(([axis, select]) => [axis, JSON.parse(select.value)]));
    if (policy === "paged") asked.max_len = grid.own.max_len; else asked.block = grid.own.block;
    return grid.points.find((one) => one.policy === policy && Object.entries(asked).every(([axis, value]) => one[axis] === value));
  }

  function say() {
    const lines = [["orca-max", "contiguous"], ["paged", "paged"]].map(([policy, name]) => {
      const found = point(policy);
      if (!found) return page.fill(words().none, { arm: words()[name] });
      const speed = found.throughput === null ? "" : page.fill(words().speed, { n: number(found.throughput, 0) });
      return page.fill(words().says, { arm: words()[name], together: number(found.together, 1), speed });
    });
    document.getElementById("what-if-says").textContent = lines.join(" ");
  }

  fill();
  say();
  view.addEventListener("change", say);
  document.addEventListener("kvlab:language", () => { fill(); say(); });
})();
