// The pictures of a page's session: those of its jobs, the newest job first, each as the history knows it.
(() => {
  "use strict";
  const { PAGES, chosenPicture, jobId } = window.darkroom;
  const { request } = window.darkroomArchive;
  const BESIDE_A_SHEET = 100; // as many as a gallery has
  const ENDED = ["done", "failed", "cancelled"];
  const known = new Map(); // by job: the question for its pictures, which is asked again until the job has ended
  const USES = {
    "reuse-settings": ["Reuse", "reuse"], "reuse-seed": ["Reuse with seed", "lock"], "vary": ["Vary", "vary"],
    "send-img2img": ["Send to img2img", "picture"], "send-inpaint": ["Send to inpaint", "brush"], "send-upscale": ["Send to upscale", "upscale"],
  };

  const images = (page) => [...document.querySelectorAll(`#${page}-gallery .thumbnail-small img`)];
  // A gallery's picture in its own file, which the browser has already.
  const shownSrc = (page, job, place) => (jobId(page) === job ? images(page)[place]?.src : undefined);

  // The pictures of a job in the order of its gallery; none where the server has forgotten it.
  const ask = async (job) => {
    const answer = await fetch(`./api/jobs/${job}?history=true`);
    if (answer.status === 404) return [];
    if (!answer.ok) throw new Error((await answer.json().catch(() => null))?.detail ?? answer.statusText);
    const told = await answer.json();
    const sheets = told.images.filter(({ sheet }) => sheet);
    const others = told.images.filter(({ sheet }) => !sheet);
    const inSight = sheets.length ? [...sheets, ...others.slice(0, BESIDE_A_SHEET)] : others;
    const pictures = inSight.map(({ index, seed, path, infotext, history: id }, place) => {
      const own = `./api/jobs/${job}/images/${index}`;
      const name = path?.split(/[\\/]/).at(-1) ?? `${String(index).padStart(5, "0")}-${seed}.png`;
      return {
        id, name, infotext, job, place, picture: `${job}/${place}`, prompt: told.request?.prompt ?? "",
        src: id ? `./api/history/${id}/picture` : own, thumbnail: id ? `./api/history/${id}/thumbnail` : own,
      };
    });
    return ENDED.includes(told.state) ? pictures : Object.assign(pictures, { isGrowing: true });
  };
  const of = async (job) => {
    if (!known.has(job)) known.set(job, ask(job));
    try {
      const pictures = await known.get(job);
      if (!pictures.length || pictures.isGrowing) known.delete(job);
      return pictures;
    } catch (error) {
      known.delete(job);
      throw error;
    }
  };
  // Those of the gallery, where the server has forgotten their job.
  const ofGallery = (page, job) => images(page).map(({ src }, place) => {
    const name = decodeURIComponent(new URL(src).pathname.split("/").at(-1));
    return { id: null, name, infotext: "", job, place, picture: `${job}/${place}`, prompt: "", src, thumbnail: src };
  });
  // The chosen picture of the page's gallery.
  const chosen = async (page) => {
    const [job, place] = chosenPicture(page).split("/");
    return job ? (await of(job))[Number(place)] : undefined;
  };

  const sourceOf = (page) => {
    let pictures = [];
    const changed = (picture) => document.dispatchEvent(new CustomEvent("darkroom:picture", { detail: { page, picture } }));
    const uses = Object.entries(USES).filter(([name]) => document.getElementById(`${page}-${name}`));
    const run = (name) => (picture) => window.darkroomFills.fromPicture(page, name, picture.picture);
    const mark = async (picture, deleted) => {
      if (deleted) await request("./api/history/delete", "POST", { pictures: [picture.id] });
      else await request(`./api/history/${picture.id}/restore`, "POST");
      picture.deleted = deleted;
      changed(picture);
    };
    const source = {
      page,
      get total() {
        return pictures.length;
      },
      get: (index) => pictures[index],
      at: async (index) => pictures[index],
      indexOf: (picture) => pictures.findIndex((one) => one.picture === picture),
      // The same place in the job before; else one of the same job.
      before: (index) => {
        const { job, place } = pictures[index];
        const older = pictures.slice(index + 1).find((one) => one.job !== job)?.job;
        const others = pictures.filter((one) => one.job === older);
        if (others.length) return pictures.indexOf(others[Math.min(place, others.length - 1)]);
        return index + 1 < pictures.length ? index + 1 : index - 1;
      },
      uses: uses.map(([name, [words, icon]]) => [words, icon, run(name)]),
      reuse: (picture, withSeed) => {
        const name = withSeed ? "reuse-seed" : "reuse-settings";
        if (document.getElementById(`${page}-${name}`)) run(name)(picture);
      },
      changed,
      remove: async (picture) => {
        await mark(picture, true);
        return async () => {
          await mark(picture, false);
          return source.indexOf(picture.picture);
        };
      },
      closed: () => {},
      take: (others) => (pictures = others),
      // `jobs` one after another, without those that are gone.
      load: async (jobs) => {
        pictures = (await Promise.all(jobs.map((job) => of(job).catch(() => [])))).flat();
      },
    };
    return source;
  };

  // The page's chosen picture large, or beside the one before.
  const open = async (page, compares = false) => {
    const picture = chosenPicture(page);
    const [job] = picture.split("/");
    if (!job) return;
    const source = sourceOf(page);
    const finished = window.darkroomJobs.finished(page);
    const jobs = finished.includes(job) ? finished : [job, ...finished];
    await source.load(compares ? jobs : [job]);
    if (source.indexOf(picture) < 0) source.take(ofGallery(page, job));
    const at = source.indexOf(picture);
    const shown = source.get(at);
    if (!shown) return;
    if (compares && source.total > 1) return void window.darkroomLight.compare(source, at);
    shown.src = shownSrc(page, job, shown.place) ?? shown.src;
    await Promise.all([window.darkroomLight.open(source, at), compares || !shown.infotext || source.load(jobs)]);
    follow(source, window.darkroomLight.shown?.picture);
  };
  const follow = (source, picture) => picture && window.darkroomLight.refresh(source, source.indexOf(picture));
  // Pictures that have come while the large view is open.
  document.addEventListener("darkroom:state", async ({ detail: { page, state } }) => {
    const { source, shown } = window.darkroomLight;
    if (source?.page !== page || !ENDED.includes(state)) return;
    await source.load([...new Set([window.darkroom.statusOf(page).dataset.job, ...window.darkroomJobs.finished(page)])]);
    if (window.darkroomLight.source === source) follow(source, shown.picture);
  });

  // Gradio's gallery goes to the next picture where its large one is pressed.
  document.addEventListener("click", (event) => {
    const gallery = event.target.closest?.("[id$='-gallery'] .media-button")?.closest("[id$='-gallery']");
    const page = gallery?.id.slice(0, -"-gallery".length);
    if (!PAGES.includes(page)) return;
    event.stopImmediatePropagation();
    event.preventDefault();
    open(page);
  }, true);
  window.darkroomPanel.whenever("[id$='-gallery'] .media-button", (button) => (button.title = "Large view (F)"));

  window.darkroomSession = { chosen, open };
})();
