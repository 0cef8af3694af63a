// Shapes for a picture around the model's own size, and a button that swaps the sides.
(() => {
  "use strict";
  const { whenever } = window.darkroomPanel;
  const { put, valueOf, whenFilled } = window.darkroomFields;
  const UNIT_PX = 8;
  const LARGE_PX = 1024; // models of this size were trained on many shapes of one area, in units of 64 px
  const LARGE_UNIT_PX = 64;
  const natives = {}; // by model: the side of its own pictures
  let asked = null;

  const round = (length) => Math.round(length / UNIT_PX) * UNIT_PX;
  const floor = (length) => Math.floor(length / LARGE_UNIT_PX) * LARGE_UNIT_PX;
  // Width and height of a shape such as "3:2": the area of a large model's own pictures, the short side of a small one's.
  const sizeOf = (shape, native) => {
    const [across, down] = shape.split(":").map(Number);
    if (native >= LARGE_PX) return [Math.sqrt(across / down), Math.sqrt(down / across)].map((side) => floor(native * side));
    return [across, down].map((side) => round((native * side) / Math.min(across, down)));
  };

  const groupOf = (page) => document.querySelector(`.shapes[data-page="${page}"]`);
  const shapesOf = (group) => [...group.querySelectorAll("[data-shape]")];
  const set = (page, [width, height]) => {
    put(page, "width", width);
    put(page, "height", height);
    const keep = document.querySelector(`#${page}-keep_size input`);
    if (keep?.checked) keep.click(); // a size that was chosen is meant
  };
  const sidesOf = (page) => ["width", "height"].map((field) => Number(valueOf(page, field)));

  const show = async (page) => {
    const group = groupOf(page);
    if (!group) return;
    const native = await nativeOf(page, group);
    const own = document.querySelector(`#${page}-keep_size input`)?.checked;
    group.classList.toggle("unused", Boolean(own));
    for (const button of shapesOf(group)) {
      const size = sizeOf(button.dataset.shape, native);
      button.title = `${button.dataset.shape}, ${size.join(" × ")}`;
      button.setAttribute("aria-pressed", String(!own && size.join() === sidesOf(page).join()));
    }
  };
  // The page was made for one model; of others the list says it.
  const nativeOf = async (page, group) => {
    const model = valueOf(page, "chosen");
    natives[group.dataset.model] ??= Number(group.dataset.native);
    if (model in natives) return natives[model];
    try {
      asked ??= fetch("./api/models").then((answer) => answer.json());
      for (const info of await asked) natives[info.name] = info.native_px;
    } catch {
      asked = null;
    }
    return natives[model] ?? Number(group.dataset.native);
  };

  whenever(".shapes", (group) => {
    const { page } = group.dataset;
    group.addEventListener("click", async ({ target }) => {
      const button = target.closest("button");
      if (button?.classList.contains("swap")) set(page, sidesOf(page).reverse());
      else if (button) set(page, sizeOf(button.dataset.shape, await nativeOf(page, group)));
    });
    show(page);
  });
  whenFilled(show);
})();
