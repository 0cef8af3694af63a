// What the history's routes are asked for: of one picture, of two, of several.
(() => {
  "use strict";
  const address = (picture, part = "") => `./api/history/${picture.id}${part}`;

  const request = async (url, method = "GET", body = undefined) => {
    const headers = body === undefined ? {} : { "content-type": "application/json" };
    const answer = await fetch(url, { method, headers, body: body === undefined ? undefined : JSON.stringify(body) });
    const told = await answer.json();
    if (!answer.ok) throw new Error(told.detail ?? answer.statusText);
    return told;
  };

  // What a list does not say of a picture, asked for once.
  const asked = new WeakMap();
  const describe = async (picture) => {
    if (!picture.id || (picture.infotext !== undefined && picture.made_at !== undefined)) return;
    if (!asked.has(picture)) asked.set(picture, request(address(picture)).finally(() => asked.delete(picture)));
    Object.assign(picture, await asked.get(picture));
  };

  window.darkroomArchive = {
    request,
    describe,
    address,
    title: (picture) => picture.prompt || picture.name || "Picture",
    // What a person is told of an error: of one by its words, of a server that is gone by ours.
    trouble: (error) => (error instanceof TypeError ? "The server does not answer." : error.message),
    favour: async (picture) => {
      const { favourite } = await request(address(picture, "/favourite"), picture.favourite ? "DELETE" : "PUT");
      picture.favourite = favourite;
    },
  };
})();
