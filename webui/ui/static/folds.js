// Folds say in their titles what is in them, so that nothing that changes the picture is out of sight.
(() => {
  "use strict";
  const { make, whenever } = window.darkroomPanel;
  const { initial, valuesOf, tell, whenFilled } = window.darkroomFields;
  const OFF = "off";

  const count = (text) => {
    try {
      return JSON.parse(text || "[]").length;
    } catch {
      return text.split(",").filter((part) => part.trim()).length;
    }
  };
  const acting = (text) => {
    try {
      return JSON.parse(text || "[]").filter(({ weight }) => weight !== 0).length;
    } catch {
      return 0;
    }
  };
  const on = (number) => (number ? `${number} on` : "none");
  const list = (...parts) => parts.filter(Boolean).join(", ");
  const sides = (of, group) => of(`${group}.width`) || of(`${group}.height`) ? `${of(`${group}.width`) || "?"} × ${of(`${group}.height`) || "?"}` : `${of(`${group}.scale`)}×`;
  // By the end of the fold's id: what its title says, from the values of fields by name and those they were made with.
  const STATES = {
    "model-panel": (of) => of("model"),
    "lora-panel": (of) => on(count(of("loras"))),
    variation: (of) => (of("variation.strength") > 0 ? `strength ${of("variation.strength")}` : OFF),
    hires: (of) => (of("hires") ? list(sides(of, "hires"), `strength ${of("hires.strength")}`) : OFF),
    upscale: (of) => (of("upscale") ? list(sides(of, "upscale"), of("upscale.upscaler")) : OFF),
    "regions-panel": (of) => on(count(of("regions"))),
    "detail-panel": (of) => on(count(of("detail"))),
    "controls-panel": (of) => on(acting(of("controls"))),
    guiding: (of) =>
      list(
        of("guidance_rescale") > 0 && `rescale ${of("guidance_rescale")}`,
        of("pag") && of("pag.scale") > 0 && `PAG ${of("pag.scale")}`,
        of("nag") && of("nag.scale") > 1 && of("nag.alpha") > 0 && `NAG ${of("nag.scale")}`,
      ) || OFF,
    shortcuts: (of) =>
      list(
        of("guidance_until") < 1 && `guidance stops after ${of("guidance_until")}`,
        of("reuse") > 1 && `step caching ${of("reuse")}`,
        of("token_merging") > 0 && `token merging ${of("token_merging")}`,
        of("int8") && "int8",
      ) || "none: pictures are exact",
    "mask-settings": (of) => list(of("mask_fill"), `soft edge ${of("mask_blur")} px`, of("softness") > 0 && `soft ${of("softness")}`, of("invert_mask") && "inverted", of("only_masked") && "zoomed in"),
    outpaint: (of) => list(...["left", "top", "right", "bottom"].map((side) => of(`outpaint_${side}`) > 0 && `${side} ${of(`outpaint_${side}`)} px`)) || "none",
    fitting: (of) => of("resize"),
    settings: (of, before) => {
      const words = {
        repeat: (value) => `${value} batches`, schedule: (value) => value, vae: (value) => `VAE ${value}`,
        text_encoder: (value) => `text encoder ${value}`,
        refiner: (value) => `refiner ${value}`, prediction: (value) => value, clip_skip: (value) => `clip skip ${value}`, strict: () => "reproducible",
      };
      const changed = Object.keys(words).filter((field) => (of(field) ?? "") !== (before(field) ?? ""));
      return list(...changed.map((field) => words[field](of(field)))) || "as usual";
    },
  };

  const show = (page) => {
    const [of, before] = [valuesOf(page), initial(page)];
    for (const [place, describe] of Object.entries(STATES)) {
      const title = document.querySelector(`#${page}-${place} > .label-wrap`);
      if (!title) continue;
      const state = title.querySelector(".fold-state") ?? title.appendChild(make("span", { class: "fold-state" }));
      const text = describe(of, before) ?? "";
      if (state.textContent === text) continue;
      state.textContent = text;
      state.title = text;
      state.classList.toggle("off", /^(off|none|as usual)/.test(text));
    }
  };

  whenever(".folds .label-wrap", (title) => {
    const chips = title.closest(".asking").querySelector(".chips"); // a page that draws nothing has none
    if (chips) tell(chips.dataset.page);
  });
  whenFilled(show);
})();
