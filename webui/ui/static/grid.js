// The table of a grid: its cells are the pictures themselves, as they come; a click takes the settings of one. And the
// yes to very many pictures, which holds for the next press of Generate alone.
(() => {
  "use strict";
  const { make, whenever } = window.darkroomPanel;
  const prefix = () => `.${window.gradio_config?.api_prefix ?? "/gradio_api"}`;
  const address = (path) => new URL(`${prefix()}/file=${path.split("/").map(encodeURIComponent).join("/")}`, document.baseURI).href;
  let confirmed = false;

  const length = (labels) => labels.length || 1;
  const build = (place, { job, labels: [across, down, blocks] }) => {
    const cells = [];
    const tables = Array.from({ length: length(blocks) }, (_, block) => {
      const table = make("table", {});
      if (blocks.length) table.append(make("caption", {}, blocks[block]));
      if (across.length) {
        const heads = across.map((label) => make("th", { scope: "col" }, label));
        table.append(make("thead", {}, make("tr", {}, ...(down.length ? [make("td", {})] : []), ...heads)));
      }
      const body = make("tbody", {});
      for (let row = 0; row < length(down); row += 1) {
        const line = make("tr", {}, ...(down.length ? [make("th", { scope: "row" }, down[row])] : []));
        for (let column = 0; column < length(across); column += 1) {
          const name = [across[column], down[row], blocks[block]].filter(Boolean).join(", ");
          cells.push(line.appendChild(make("td", { "data-name": name })));
        }
        body.append(line);
      }
      table.append(body);
      return table;
    });
    place.replaceChildren(...tables);
    place.dataset.job = job;
    return cells;
  };

  const shown = new WeakMap(); // by the place of the table: its cells
  const show = (element) => {
    const place = element.closest(".picture")?.querySelector(".grid-sheet");
    if (!place || !element.dataset.cells) return;
    const told = JSON.parse(element.dataset.cells);
    if (place.dataset.job !== told.job) shown.set(place, build(place, told));
    const cells = shown.get(place) ?? [];
    for (const [index, at, path] of told.cells) {
      const cell = cells[at];
      if (!cell || cell.querySelector(`[data-index="${index}"]`)) continue;
      const title = `Take the settings of ${cell.dataset.name || "this picture"}`;
      const button = make(
        "button", { type: "button", "data-index": index, title, "aria-label": title },
        make("img", { src: address(path), alt: "", loading: "lazy", decoding: "async" }),
      );
      button.addEventListener("click", () => {
        place.querySelector("[aria-pressed]")?.removeAttribute("aria-pressed");
        button.setAttribute("aria-pressed", "true");
        window.darkroomFills.ask("grid", "cell", { job: told.job, index });
      });
      cell.append(button);
    }
  };
  whenever(".grid-cells", show);

  document.addEventListener("click", ({ target }) => {
    if (!target.closest?.("[data-yes]")) return;
    confirmed = true;
    document.getElementById("grid-generate")?.click();
  });

  window.darkroomGrid = {
    takeYes: () => {
      const yes = confirmed ? "yes" : "";
      confirmed = false;
      return yes;
    },
  };
})();
