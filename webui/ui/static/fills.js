// Fields that are filled from elsewhere. Generate, pressed while a fill is on its way, waits for it: else it would draw
// what the fields said before. What is typed into a prompt meanwhile stays. And which fields were chosen by hand, so that
// another model leaves them alone.
(() => {
  "use strict";
  const waiting = {}; // by page: the names of the fills that are on their way
  const held = new Set(); // pages whose Generate was pressed meanwhile
  const typed = {}; // by page: boxes that were typed into meanwhile, with their texts
  const fillsOf = (page) => (waiting[page] ??= new Set());
  const buttonOf = (page) => document.getElementById(`${page}-generate`);
  const byHandKey = (page) => `darkroom.${page}.byHand`;
  const byHand = (page) => window.darkroom.read(byHandKey(page)); // names of fields, a space between them

  const end = (page, name) => {
    fillsOf(page).delete(name);
    if (fillsOf(page).size) return;
    for (const [box, text] of typed[page] ?? []) {
      if (box.value === text) continue;
      box.value = text;
      box.dispatchEvent(new Event("input", { bubbles: true }));
    }
    delete typed[page];
    if (!held.delete(page)) return;
    buttonOf(page)?.removeAttribute("aria-busy");
    setTimeout(() => buttonOf(page)?.click()); // once Gradio's fields have taken their values
  };

  // What `work` gives the server to fill the page's fields from. Where it fails there is no fill.
  const begin = async (page, name, work, allFields) => {
    fillsOf(page).add(name);
    if (allFields) window.darkroom.write(byHandKey(page), "");
    try {
      return await work();
    } catch (error) {
      end(page, name);
      throw error;
    }
  };

  document.addEventListener("click", (event) => {
    const id = event.target.closest?.("[id$='-generate']")?.id;
    const page = id?.slice(0, -"-generate".length);
    if (!page || !fillsOf(page).size) return;
    event.stopImmediatePropagation();
    event.preventDefault();
    held.add(page);
    buttonOf(page).setAttribute("aria-busy", "true");
  }, true);

  document.addEventListener("input", ({ isTrusted, target }) => {
    const [, page] = target.closest?.("[id$='-prompt'], [id$='-negative']")?.id.match(/^(.+)-(?:prompt|negative)$/) ?? [];
    if (isTrusted && page && fillsOf(page).size) (typed[page] ??= new Map()).set(target, target.value);
  }, true);

  window.darkroomFills = {
    begin,
    end,
    byHand,
    isWaiting: (page) => fillsOf(page).size > 0,
    chooseByHand: (page, field) => window.darkroom.write(byHandKey(page), [...new Set(byHand(page).split(" ")).add(field)].join(" ").trim()),
  };
})();
