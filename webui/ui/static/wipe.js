// A picture before and after, one over the other, with a line between them that can be moved.
(() => {
  "use strict";
  const prefix = () => `.${window.gradio_config?.api_prefix ?? "/gradio_api"}`;
  const address = (path) => new URL(`${prefix()}/file=${path}`, document.baseURI).href;
  const move = (figure, percent) => {
    figure.querySelector("input").value = percent;
    figure.querySelector(".wipe-stage").style.setProperty("--wipe", `${percent}%`);
  };

  const show = (page, told) => {
    const figure = document.querySelector(`#${page}-wipe .wipe`);
    if (!figure) return;
    const { before, after } = JSON.parse(told || "{}");
    figure.hidden = !before;
    if (!before) return;
    const [first, second] = figure.querySelectorAll("img");
    first.src = address(before);
    second.src = address(after);
    move(figure, 50);
  };

  document.addEventListener("input", ({ target }) => {
    const figure = target.closest?.(".wipe");
    if (figure) move(figure, target.value);
  });
  const drag = (event) => {
    const stage = event.target.closest?.(".wipe-stage");
    if (!stage || !event.buttons) return;
    event.preventDefault();
    const { left, width } = stage.getBoundingClientRect();
    move(stage.closest(".wipe"), Math.round(Math.min(Math.max((event.clientX - left) / width, 0), 1) * 100));
  };
  document.addEventListener("pointerdown", drag);
  document.addEventListener("pointermove", drag);

  window.darkroomWipe = { show };
})();
