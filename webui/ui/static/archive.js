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

  window.darkroomArchive = {
    request,
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
