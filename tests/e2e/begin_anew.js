// The page as nobody has used it, on one that was used; false where it has to be loaded for that. Its fields come back the
// way that Undo takes. `left` is what was in them.
async ([{ fields, storages, open }, left]) => {
  const until = async (done, what) => {
    for (let looks = 0; !done(); looks++) {
      if (looks > 5000) throw new Error(`not as new: ${what()}`);
      await new Promise((go) => setTimeout(go, 10));
    }
  };
  const restore = () => [localStorage, sessionStorage].forEach((storage, k) => {
    storage.clear();
    Object.assign(storage, storages[k]);
  });
  const loadAgain = () => {
    restore();
    history.replaceState(history.state, "", location.pathname); // with the first tab in front
    return false;
  };
  const waits = (page) => darkroom.isBusy(page) || darkroomFills.isWaiting(page);
  await until(() => !darkroom.PAGES.some(waits), () => darkroom.PAGES.filter(waits));
  const isGiven = (page) => document.querySelector(`#${page}-image img, #${page}-mask_picture img, #${page}-files tr`);
  if (darkroom.PAGES.some(isGiven)) return loadAgain(); // what is painted and folded in goes with them
  document.querySelectorAll("dialog[open]").forEach((dialog) => dialog.close());
  const pressed = ".toast-close, [aria-label='Remove Image'], #png-info-with-seed input:checked";
  document.querySelectorAll(pressed).forEach((button) => button.click());
  document.querySelector(".undo-note")?.remove();
  const controls = gradio_config.components.filter(({ type }) => type !== "button");
  const made = Object.fromEntries(controls.map(({ props }) => [props?.elem_id, props?.value]));
  for (const page of darkroom.PAGES) {
    const [given, now] = [fields, left].map((known) => JSON.parse(known[page] || "{}"));
    const idOf = (field) => `${page}-${field.replace(".", "-")}`;
    const first = (field) => given[field] ?? made[idOf(field)] ?? made[`${idOf(field)}-on`] ?? null;
    const before = Object.keys(now).map((field) => [field, first(field)]);
    const isSame = (value, other) => (!value && !other) || String(value) === String(other);
    const wrong = (is) => before.filter(([field, value]) => !isSame(is[field], value));
    if (wrong(now).some(([, value]) => value === null)) return loadAgain(); // the memory empties no number
    if (!wrong(now).length) continue;
    darkroomFills.ask(page, "memory", { text: JSON.stringify(Object.fromEntries(before)) });
    const stillWrong = () => wrong(JSON.parse(darkroom.recall(page) || "{}"));
    await until(() => !darkroomFills.isWaiting(page) && !stillWrong().length, () => `${page} ${stillWrong()}`);
  }
  document.querySelector(".undo-note")?.remove();
  document.querySelectorAll(".history select").forEach((choice) => {
    choice.selectedIndex = 0;
    choice.dispatchEvent(new Event("change", { bubbles: true }));
  });
  document.querySelectorAll("input[type=search]").forEach((box) => {
    box.value = "";
    box.dispatchEvent(new Event("input", { bubbles: true }));
  });
  for (const button of document.querySelectorAll("button.label-wrap")) {
    if (button.classList.contains("open") !== open.includes(button.closest("[id]").id)) button.click();
  }
  document.querySelector("#darkroom-tabs [role=tab][data-tab-id=txt2img][aria-selected=false]")?.click();
  restore();
  [window.told, window.previews] = [[], []];
  scrollTo(0, 0);
  document.querySelector("#txt2img-prompt textarea").focus();
  return true;
}
