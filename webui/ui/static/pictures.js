// Start pictures, masks and what is painted live in this browser alone (IndexedDB), so that a reload finds them, also after
// the server has restarted, and no visitor sees another's. Each tab knows its own by their ids.
(() => {
  "use strict";
  const MOST_KEPT = 12;
  const PICTURES = "pictures";
  const STROKES = "strokes"; // under the id of the picture that they are painted on
  const { read, write } = window.darkroom;
  const ids = {}; // by place: the id of the picture there, once it is kept
  const paths = {}; // by place: the file that is there now
  const placeOf = (page, field) => `darkroom.${page}.${field}`;
  const onlyAtServer = (place) => `${place}.file`; // what the browser is still about to keep: a reload meanwhile asks for it
  const prefix = () => `.${window.gradio_config?.api_prefix ?? "/gradio_api"}`;

  let opened;
  const open = () =>
    new Promise((resolve, reject) => {
      const request = indexedDB.open("darkroom", 1);
      request.onupgradeneeded = () => [PICTURES, STROKES].forEach((store) => request.result.createObjectStore(store));
      request.onsuccess = () => resolve(request.result);
      request.onerror = () => reject(request.error);
    });
  const transact = async (mode, work) => {
    const database = await (opened ??= open());
    return new Promise((resolve, reject) => {
      const transaction = database.transaction([PICTURES, STROKES], mode);
      const request = work(...[PICTURES, STROKES].map((store) => transaction.objectStore(store)));
      transaction.oncomplete = () => resolve(request?.result);
      transaction.onerror = transaction.onabort = () => reject(transaction.error);
    });
  };
  const attempt = async (work) => {
    try {
      return await work();
    } catch (error) {
      console.warn("the browser does not keep the picture", error);
      return null;
    }
  };

  const newId = () => `${Date.now()}-${Math.random().toString(36).slice(2)}`; // in the order of time
  const put = async (file, id) => {
    const answer = await fetch(file.url);
    if (!answer.ok) throw new Error(`picture: ${answer.status}`);
    const kept = { blob: await answer.blob(), name: file.orig_name ?? "picture.png" };
    await transact("readwrite", (pictures, strokes) => {
      pictures.put(kept, id);
      const known = pictures.getAllKeys();
      known.onsuccess = () => known.result.slice(0, -MOST_KEPT).forEach((old) => [pictures, strokes].forEach((store) => store.delete(old)));
    });
    return kept;
  };
  const forget = async (id) => {
    if (id) await transact("readwrite", (pictures, strokes) => [pictures, strokes].forEach((store) => store.delete(id)));
  };
  // The place has another file, or none.
  const keep = (page, field, file) => {
    const place = placeOf(page, field);
    const { path } = file ?? {};
    if (path === paths[place]) return; // none at the beginning, or the one that was recalled
    paths[place] = path;
    const [old, id] = [read(place), file ? newId() : ""];
    write(place, id);
    write(onlyAtServer(place), file ? JSON.stringify(file) : "");
    ids[place] = attempt(async () => {
      if (!file) return forget(old);
      await put(file, id);
      if (read(place) === id) write(onlyAtServer(place), "");
      return id;
    });
  };
  const keepStrokes = (page, strokes) =>
    attempt(async () => {
      const id = await ids[placeOf(page, "image")];
      if (id) await transact("readwrite", (_, store) => void store.put(strokes, id));
    });

  // The server gets the kept file again, and the place the value that Gradio's own upload would give it.
  const recallOne = async (page, field) => {
    const place = placeOf(page, field);
    const id = read(place);
    if (!id) return null;
    const atServer = JSON.parse(read(onlyAtServer(place)) || "null");
    const kept = (await transact("readonly", (pictures) => pictures.get(id))) ?? (atServer && (await put(atServer, id)));
    if (!kept) return null;
    write(onlyAtServer(place), "");
    const strokes = await transact("readonly", (_, store) => store.get(id));
    const body = new FormData();
    body.append("files", kept.blob, kept.name);
    const answer = await fetch(`${prefix()}/upload`, { method: "POST", body });
    if (!answer.ok) throw new Error(`upload: ${answer.status}`);
    const [path] = await answer.json();
    if (paths[place]) return null; // meanwhile another one was chosen
    [paths[place], ids[place]] = [path, id];
    if (field === "image") window.darkroomPainter.recall(page, strokes ?? []);
    const url = new URL(`${prefix()}/file=${path}`, document.baseURI).href;
    return { path, url, orig_name: kept.name, meta: { _type: "gradio.FileData" } };
  };
  // The files of all these places, each a page and a field; Generate of those that have one waits for it.
  const recall = async (places) => {
    const { begin, end } = window.darkroomFills;
    const pages = places.filter(([page, field]) => read(placeOf(page, field))).map(([page]) => page);
    pages.forEach(begin);
    const files = await Promise.all(places.map(([page, field]) => attempt(() => recallOne(page, field))));
    setTimeout(() => pages.forEach(end)); // once they are in their places
    return files.map((file) => file ?? { __type__: "update" }); // the empty update leaves the place as it is
  };

  window.darkroomPictures = { keep, keepStrokes, recall };
})();
