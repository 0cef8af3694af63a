// Presets and styles of a page: which styles are on, what a preset would change, and the list of all from the server.
(() => {
  "use strict";
  const { put, valueOf, valuesOf } = window.darkroomFields;
  const PROMPTS = ["prompt", "negative"];

  // The styles in use live as JSON in a field that is not shown, and travel like every other field.
  const styles = (page) => {
    try {
      const names = JSON.parse(valueOf(page, "styles") || "[]");
      return Array.isArray(names) ? names.filter((name) => typeof name === "string") : [];
    } catch {
      return [];
    }
  };
  const setStyles = (page, names) => put(page, "styles", names.length ? JSON.stringify(names) : "");

  // Off on all pages, those too whose fields are not there at the moment.
  const dropStyle = (name) => {
    for (const page of window.darkroom.PAGES) {
      const left = styles(page).filter((other) => other !== name);
      if (left.length === styles(page).length) continue;
      const memory = JSON.parse(window.darkroom.recall(page) || "{}");
      const text = JSON.stringify({ ...memory, styles: left.length ? JSON.stringify(left) : "" });
      if (document.getElementById(`${page}-styles`)) setStyles(page, left);
      else window.darkroomFills.ask(page, "memory", { text });
    }
  };

  const call = async (path, options) => {
    const answer = await fetch(`./api/presets${path}`, options).catch(() => {
      throw new Error("The server does not answer.");
    });
    const told = await answer.json().catch(() => ({}));
    if (!answer.ok) throw new Error(told.detail ?? answer.statusText);
    return told;
  };
  const send = (method, body) =>
    call("", { method, headers: { "content-type": "application/json" }, body: JSON.stringify(body) });
  const query = (values) => `?${new URLSearchParams(values)}`;

  // As the page's own labels say it
  let labels;
  const labelOf = (page, field) => {
    labels ??= new Map((window.gradio_config?.components ?? []).map(({ props }) => [props?.elem_id, props?.label]));
    const id = `${page}-${field.replace(".", "-")}`;
    return labels.get(id) ?? labels.get(`${id}-on`) ?? field.replaceAll("_", " ");
  };
  const asText = (value) => {
    if (typeof value === "string" && value.startsWith("[")) {
      try {
        return asText(JSON.parse(value));
      } catch {
        return value;
      }
    }
    if (Array.isArray(value)) return value.map((one) => (one?.name ? `${one.name} ${one.weight ?? 1}` : one?.finder ?? asText(one))).join(", ");
    if (value && typeof value === "object") return Object.values(value).map(asText).join(" ");
    if (typeof value === "boolean") return value ? "on" : "off";
    return value === null || value === undefined ? "" : String(value);
  };
  // Rows [label, what it would be, what it is now] of those of the page's fields that a preset would change.
  const changes = (page, info) => {
    const of = valuesOf(page);
    return Object.entries({ ...info.fields, ...info.init }).flatMap(([field, value]) => {
      const now = PROMPTS.includes(field) ? valueOf(page, field) : of(field);
      if (now === undefined || asText(now) === asText(value)) return [];
      return [[labelOf(page, field), asText(value), asText(now)]];
    });
  };

  window.darkroomPresets = {
    styles,
    setStyles,
    dropStyle,
    changes,
    list: (page) => call(query({ model: valueOf(page, "model") })),
    warnings: async (name) => (await call(`/warnings${query({ name })}`)).warnings,
    save: (body) => send("POST", body),
    rename: (name, to) => send("PATCH", { name, to }),
    remove: (name) => call(query({ name }), { method: "DELETE" }),
    take: (file) => call(`/import${query({ name: file.name })}`, { method: "POST", body: file, headers: { "content-type": "application/octet-stream" } }),
    fileUrl: (name) => `./api/presets/file${query({ name })}`,
  };
})();
