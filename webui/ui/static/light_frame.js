// What the large view is made of: its bars, the place of the picture, what is told beside it.
(() => {
  "use strict";
  const { make } = window.darkroomPanel;
  const WAYS = { wipe: "Wipe", side: "Side by side", blink: "Blink" };

  const act = (name, words, icon, more = {}) =>
    make("button", { type: "button", "data-act": name, title: words, style: icon && `--icon: var(--icon-${icon})`, ...more }, make("span", {}, words));
  const makeDialog = () => {
    const group = (name, ...inside) => make("div", { class: `light-${name}` }, ...inside);
    const ways = Object.entries(WAYS).map(([way, words]) => make("button", { type: "button", "data-way": way, "aria-pressed": "false" }, words));
    const heads = ["Setting", "A", "B"].map((words) => make("th", { scope: "col" }, words));
    const place = make("div", { class: "light-stage", tabindex: "0", role: "group", "aria-label": "The picture", autofocus: "" });
    const dialog = make("dialog", { id: "darkroom-light", class: "light", "aria-label": "Large view" });
    dialog.append(make("div", { class: "light-frame" },
      group("bar",
        make("p", { class: "light-title", role: "status" }, make("strong"), " ", make("span")),
        make("div", { class: "light-ways", role: "group", "aria-label": "Compare" }, ...ways,
          make("label", {}, make("span", { class: "visually-hidden" }, "Wipe"), make("input", { class: "light-line", type: "range", min: "0", max: "100", value: "50" })),
          act("swap", "Swap", "swap")),
        make("div", { class: "light-zoom", role: "group", "aria-label": "Size" },
          make("button", { type: "button", "data-act": "farther", "aria-label": "Zoom out (−)", title: "Zoom out (−)" }, "−"),
          make("output", { class: "light-percent" }),
          make("button", { type: "button", "data-act": "nearer", "aria-label": "Zoom in (+)", title: "Zoom in (+)" }, "+"),
          make("button", { type: "button", "data-act": "fit", title: "The whole picture (0)", "aria-pressed": "true" }, "Fit"),
          make("button", { type: "button", "data-act": "one", title: "Actual size (1)" }, "1:1")),
        act("full", "Full screen", "large", { title: "Full screen (F)" }),
        act("compare", "Compare", "compare", { "aria-pressed": "false", title: "Compare with the one before (C)" }),
        act("info", "Info", "info", { "aria-pressed": "false", title: "Information (I)" }),
        make("button", { type: "button", "data-act": "close", "aria-label": "Close", title: "Close (Esc)" }, "✕")),
      place,
      make("button", { type: "button", class: "light-go", "data-act": "previous", "aria-label": "The picture before", title: "The picture before (←)" }, "‹"),
      make("button", { type: "button", class: "light-go", "data-act": "next", "aria-label": "The next picture", title: "The next picture (→)" }, "›"),
      make("strong", { class: "light-turn", "aria-hidden": "true" }),
      group("acts",
        act("favourite", "Favourite", "heart", { "aria-pressed": "false", title: "Favourite (S)" }),
        make("a", { "data-act": "download", title: "Download", style: "--icon: var(--icon-download)" }, make("span", {}, "Download")),
        act("copy", "Copy prompt", "copy"),
        group("uses"),
        make("label", { class: "light-seed" }, make("input", { type: "checkbox" }), " With seed"),
        act("delete", "Delete", "delete", { title: "Delete (Delete)" })),
      make("p", { class: "light-note", role: "status" }),
      make("div", { class: "light-strip", role: "group", "aria-label": "Pictures" }),
      make("div", { class: "light-side", tabindex: "0", role: "region", "aria-label": "About the picture" },
        make("section", { class: "light-differences" },
          make("h2", {}, "What differs"),
          make("p", { class: "light-same", role: "status" }),
          make("p", { class: "light-alike", role: "status" }),
          make("table", { hidden: "" }, make("thead", {}, make("tr", {}, ...heads)), make("tbody"))),
        make("section", { class: "light-info" },
          make("h2", {}, "Information"),
          make("p", { class: "light-facts" }),
          make("pre", { class: "light-infotext", "aria-label": "Settings of this picture" }))),
    ));
    return dialog;
  };

  window.darkroomLightFrame = { make: makeDialog };
})();
