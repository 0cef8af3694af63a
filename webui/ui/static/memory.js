// What the next job will take of memory, below Generate, for models that are large: told before anything is loaded.
(() => {
  "use strict";
  const LARGE_BYTES = 2 ** 28;
  const PATIENCE_MS = 300;
  const { make } = window.darkroomPanel;
  const { valueOf, valuesOf, whenFilled } = window.darkroomFields;
  const rows = (page, group) => {
    try {
      return JSON.parse(valueOf(page, group) || "[]");
    } catch {
      return []; // what cannot be read is refused when it is asked for
    }
  };
  const perturbed = (of) => Boolean(of("pag")) && of("pag.scale") > 0;
  const { chosen, list } = window.darkroomModels;
  const asked = {}; // by page: what the line is about
  let health = {};

  const gib = (bytes) => `${(bytes / 2 ** 30).toFixed(1)} GiB`;
  const seconds = (number) => String(Math.max(1, Math.round(number)));
  const takes = ({ weight_bytes: weights, step_bytes: step }) =>
    `Takes ${gib(weights + step)} of memory, ${gib(step)} of it for a step of this size.`;
  const words = (told, model) => {
    if (told.plan === null) {
      return `This does not fit: ${gib(told.least_bytes)} are needed, and ${gib(told.free_bytes)} are free. A smaller picture or a file with smaller weights (fp8, GGUF) would help.`;
    }
    const parts = [takes(told)];
    if (told.plan && told.plan !== "resident") parts.push(`Memory plan: ${told.plan}.`);
    if (told.load_s && !health.models?.includes(model)) parts.push(`Loads in about ${seconds(told.load_s)} s.`);
    return parts.join(" ");
  };
  const lineOf = (page) => {
    const status = document.getElementById(`${page}-status`);
    if (!status) return null;
    let line = document.getElementById(`${page}-memory`);
    if (!line) {
      line = make("p", { id: `${page}-memory`, class: "job-memory", role: "status" });
      status.before(line);
    }
    return line;
  };
  const say = (page, text, amiss = false) => {
    const line = text ? lineOf(page) : document.getElementById(`${page}-memory`);
    if (!line) return;
    line.hidden = !text;
    line.textContent = text;
    line.classList.toggle("is-amiss", amiss);
  };

  const show = async (page) => {
    const model = chosen(page);
    if (!health.is_owner || !model) return;
    const [width, height, count] = ["width", "height", "count"].map((field) => Number(valueOf(page, field)) || 0);
    const guided = Number(valueOf(page, "guidance")) !== 1;
    const control = rows(page, "controls").map(({ model: name }) => name).filter(Boolean);
    const of = valuesOf(page);
    const more = { guided, regions: rows(page, "regions").length, pag: perturbed(of), int8: Boolean(of("int8")) };
    const key = [model, width, height, count, ...Object.values(more), control, health.models].join();
    if (asked[page] === key) return;
    asked[page] = key;
    const info = (await list())?.find(({ name }) => name === model);
    if (asked[page] !== key) return;
    if (!info || info.problem || info.size_bytes < LARGE_BYTES) {
      say(page, "");
      return;
    }
    await new Promise((resolve) => setTimeout(resolve, PATIENCE_MS)); // a slider is still on its way
    if (asked[page] !== key) return;
    const size = { width: width || info.native_px, height: height || info.native_px, count: count || 1 };
    const query = new URLSearchParams({ name: model, ...size, ...more });
    for (const name of control) query.append("control", name);
    try {
      const answer = await fetch(`./api/models/memory?${query}`);
      if (!answer.ok || asked[page] !== key) return;
      const told = await answer.json();
      say(page, words(told, model), told.plan === null);
    } catch {
      delete asked[page]; // the server comes back, and it is asked again
    }
  };
  whenFilled(show);
  document.addEventListener("darkroom:health", ({ detail }) => {
    health = detail;
    for (const page of window.darkroom.PAGES) show(page);
  });
})();
