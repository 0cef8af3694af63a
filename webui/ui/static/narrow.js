// On a phone the picture stands right under the prompt, between what is asked for first and the rest. There it is in the
// document too, so that the Tab key and screen readers meet it where it is seen.
(() => {
  "use strict";
  const narrow = matchMedia("(max-width: 900px)"); // as in layout.css
  const READY = ".workbench:has(.asking-head) .picture"; // a page that nobody has opened yet is half made
  const put = (picture) => {
    const bench = picture.closest(".workbench");
    const focused = picture.contains(document.activeElement) ? document.activeElement : null;
    if (narrow.matches) bench.querySelector(".asking-head").after(picture);
    else bench.append(picture);
    focused?.focus({ preventScroll: true });
  };
  narrow.addEventListener("change", () => document.querySelectorAll(READY).forEach(put));
  window.darkroomPanel.whenever(READY, (picture) => narrow.matches && put(picture));
})();
