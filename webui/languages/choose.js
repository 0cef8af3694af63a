// The page's language: the one that was chosen in the settings, else the browser's. For English nothing is loaded.
(() => {
  "use strict";
  const names = NAMES;
  const have = (one) => one === "en" || Object.hasOwn(names, one);
  const code = (tag) => tag.toLowerCase().split("-")[0];
  let chosen = null;
  try {
    chosen = localStorage.getItem("darkroom.language");
  } catch {} // a browser that keeps nothing
  const language = have(chosen) ? chosen : (navigator.languages.map(code).find(have) ?? "en");
  window.darkroomLanguages = { names, language };
  document.documentElement.lang = language;
  // Gradio has words of its own, in the browser's language: they are to be in the same one.
  if (code(navigator.language) !== language) {
    Object.defineProperty(navigator, "language", { get: () => language });
    Object.defineProperty(navigator, "languages", { get: () => [language] });
  }
  // It has to run before Gradio does, as only a script does that the parser meets.
  if (language !== "en") document.write(`<script src="languages/${language}.js"></${"script"}>`);
})();
