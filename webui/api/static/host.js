// The host's page: asks /api/host every few seconds, and sends what the host decides.
const LOOK_MS = 3000;
const LIMITS = [
  ["waiting", "Jobs that wait"],
  ["pictures_an_hour", "Pictures an hour"],
  ["upload_mb", "Uploads a day, MB"],
  ["disk_mb", "Kept on the disk, MB"],
];
const byId = (id) => document.getElementById(id);
const make = (tag, properties = {}, ...children) => {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
};
const when = (seconds) => {
  if (seconds === null) return "not since the start";
  if (seconds < 60) return "now";
  return seconds < 3600 ? `${Math.round(seconds / 60)} min ago` : `${Math.round(seconds / 3600)} h ago`;
};
const nameOf = ({ id, name }) => name || (id === "nobody" ? "without a cookie" : `Guest ${id.slice(0, 6)}`);

const ask = async (path = "", method = "GET", body = undefined) => {
  const answer = await fetch(`api/host${path}`, {
    method,
    body: body && JSON.stringify(body),
    headers: body && { "Content-Type": "application/json" },
  });
  const said = await answer.json();
  if (!answer.ok) throw new Error(said.detail ?? answer.statusText);
  return said;
};
// Does it, says what came of it, and shows how things are then.
const act = async (work, words) => {
  try {
    const answer = await work();
    byId("said").textContent = typeof words === "function" ? words(answer) : words;
    await look();
  } catch (error) {
    complain(error);
  }
};
const complain = (error) => {
  byId("trouble").hidden = !error;
  byId("trouble").textContent = error ? `That did not work: ${error.message}` : "";
};
const stopped = ({ stopped: count }) => (count === 1 ? "1 job was stopped." : `${count} jobs were stopped.`);

const jobLine = (job) => {
  const state = job.state === "queued" && job.position ? `waits, place ${job.position}` : job.state;
  const prompt = job.prompt ? make("span", { translate: false }, job.prompt) : "no prompt";
  return make("li", {}, make("span", {}, state), ": ", prompt);
};
const guestRow = (guest) => {
  const name = nameOf(guest);
  const button = (text, label, work, words) =>
    make("button", { type: "button", textContent: text, ariaLabel: label, onclick: () => act(work, words) });
  const path = `/guests/${encodeURIComponent(guest.id)}`;
  const actions = [button("Stop", `Stop the jobs of ${name}`, () => ask(`${path}/stop`, "POST"), stopped)];
  if (guest.banned) actions.push(button("Let in", `Let in ${name}`, () => ask(`${path}/ban`, "DELETE"), `${name} can come in again.`));
  else if (guest.id !== "nobody") actions.push(button("Block", `Block ${name}`, () => ask(`${path}/ban`, "PUT"), `${name} is blocked.`));
  const jobs = guest.jobs.length ? make("ul", {}, ...guest.jobs.map(jobLine)) : guest.done ? `${guest.done} done` : "none";
  const pictures = make("td", {}, String(guest.pictures_this_hour));
  pictures.dataset.unit = "pictures this hour";
  const row = make(
    "tr",
    {},
    make("th", { scope: "row" }, name),
    make("td", {}, guest.banned ? "blocked" : when(guest.seen_s)),
    make("td", {}, jobs),
    pictures,
    make("td", {}, `${guest.disk_mb} MB`),
    make("td", {}, make("div", { className: "row" }, ...actions)),
  );
  row.dataset.guest = guest.id;
  return row;
};
const fill = (input, value) => {
  const key = input.type === "checkbox" ? "checked" : "value";
  if (document.activeElement !== input && !input.dataset.touched) input[key] = value;
};

let shown = "";
const look = async () => {
  const host = await ask();
  complain(null);
  const guests = JSON.stringify(host.guests);
  if (guests !== shown) {
    const label = document.activeElement?.closest?.("#guests") && document.activeElement.ariaLabel;
    byId("guests").replaceChildren(...host.guests.map(guestRow));
    if (label) byId("guests").querySelector(`[aria-label="${CSS.escape(label)}"]`)?.focus();
    shown = guests;
  }
  byId("nobody").hidden = host.guests.length > 0;
  fill(byId("message"), host.message);
  for (const name of ["paused", "closed"]) fill(byId(name), host[name]);
  for (const input of byId("limits").elements) if (input.name) fill(input, host.limits[input.name]);
};

for (const [name, title] of LIMITS) {
  const cell = (field, label) =>
    make("td", {}, make("input", { type: "number", min: 0, required: true, name: field, id: `limit-${field}`, ariaLabel: label }));
  byId("limit-rows").append(
    make("tr", {}, make("th", { scope: "row" }, title), cell(name, `${title}, one guest`), cell(`${name}_in_all`, `${title}, all guests`)),
  );
}
byId("limits").addEventListener("input", ({ target }) => (target.dataset.touched = ""));
byId("limits").addEventListener("submit", (event) => {
  event.preventDefault();
  const inputs = [...byId("limits").elements].filter((input) => input.name);
  inputs.forEach((input) => delete input.dataset.touched);
  const limits = Object.fromEntries(inputs.map((input) => [input.name, Number(input.value)]));
  act(() => ask("", "PATCH", { limits }), "The limits are set.");
});
byId("message").addEventListener("input", ({ target }) => (target.dataset.touched = ""));
byId("message-form").addEventListener("submit", (event) => {
  event.preventDefault();
  const input = byId("message");
  delete input.dataset.touched;
  act(() => ask("", "PATCH", { message: input.value }), input.value ? "All pages show it within seconds." : "The message is gone.");
});
const switches = {
  paused: ["Guests' jobs wait until you let them go on.", "Guests' jobs go on."],
  closed: ["No new guests come in.", "New guests can come in."],
};
for (const [name, [on, off]] of Object.entries(switches)) {
  byId(name).addEventListener("change", ({ target }) => {
    act(() => ask("", "PATCH", { [name]: target.checked }), target.checked ? on : off);
  });
}
byId("stop-all").addEventListener("click", () => act(() => ask("/stop", "POST"), stopped));

const keepLooking = async () => {
  if (!document.hidden) await look().catch(complain);
  setTimeout(keepLooking, LOOK_MS);
};
keepLooking();
