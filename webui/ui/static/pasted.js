// Settings in a prompt's box, as other programs copy them: a notice offers to apply them.
(() => {
  "use strict";
  const LIKE_SETTINGS = /^[ \t]*Negative prompt:|(?:^|\s)Steps:[ \t]*\d+[ \t]*,/im;
  const boxOf = (page, field) => document.querySelector(`#${page}-${field} textarea`);
  const show = (notice) => {
    const { page, field } = notice.dataset;
    notice.hidden = !LIKE_SETTINGS.test(boxOf(page, field)?.value ?? "");
  };

  window.darkroomPanel.whenever(".pasted", (notice) => {
    const { page, field } = notice.dataset;
    notice.querySelector("button").addEventListener("click", () => {
      window.darkroomFills.ask(page, "pasted", { field, text: boxOf(page, field).value });
    });
    show(notice);
  });

  window.darkroomFields.whenFilled((page) => document.querySelectorAll(`.pasted[data-page="${page}"]`).forEach(show));
})();
