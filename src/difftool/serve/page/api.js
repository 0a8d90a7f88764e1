// Talks to the server: the key, errors with their hints, and events as they come.

const page = Object.fromEntries(
  ["lock", "unlock", "key", "wrong-key"].map((id) => [id, document.getElementById(id)]),
);

let key; // nowhere else, so it is forgotten with the page
let asking; // the dialog that is open, of which there is one for all requests

/** An answer that is an error: what is wrong, what to do, and the field that it is about. */
export class Refusal extends Error {
  constructor({ message, hint, param }) {
    super(message);
    this.hint = hint;
    this.param = param;
  }
}

/**
 * Ask for a path, and return the answer; a body makes it a POST. If it needs a key, the user is
 * asked for one, unless `quietly`. Throws Refusal, or AbortError when `signal` says so.
 */
export async function ask(path, { body, signal, quietly = false } = {}) {
  const sent = key;
  const headers = {};
  if (body) headers["content-type"] = "application/json";
  if (sent) headers.authorization = `Bearer ${sent}`;
  let answer;
  try {
    answer = await fetch(path, { method: body ? "POST" : "GET", headers, body, signal });
  } catch (error) {
    throw unreachable(error);
  }
  if (answer.ok) return answer;
  const refusal = await refused(answer);
  if (answer.status !== 401 || quietly) throw refusal;
  // Another request may have got a key meanwhile.
  if (key === sent) await unlocked(sent ? "This key is not one of the server's." : "", refusal);
  return ask(path, { body, signal });
}

/** The events of an answer, as objects; throws Refusal for one that is an error. */
export async function* events(answer) {
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (;;) {
    let part;
    try {
      part = await reader.read();
    } catch (error) {
      throw unreachable(error);
    }
    if (part.done) return;
    const blocks = (text + part.value).split(/\r\n\r\n|\n\n/);
    text = blocks.pop();
    for (const block of blocks) {
      const data = block.match(/^data: (.*)$/m);
      if (!data) continue; // a comment, which keeps the connection open
      const event = JSON.parse(data[1]);
      if (event.error) throw new Refusal(event.error);
      yield event;
    }
  }
}

function unreachable(error) {
  if (error.name === "AbortError") return error;
  return new Refusal({ message: "The server cannot be reached", hint: "is it still running?" });
}

async function refused(answer) {
  const said = await answer.json().catch(() => ({}));
  return new Refusal(said.error ?? { message: `The server answered ${answer.status}`, hint: "see its log" });
}

function unlocked(wrong, refusal) {
  asking ??= new Promise((resolve, reject) => {
    page["wrong-key"].textContent = wrong;
    page.key.value = "";
    page.lock.showModal();
    page.unlock.onsubmit = (event) => {
      event.preventDefault();
      key = page.key.value.trim();
      page.key.value = "";
      resolve();
      page.lock.close();
    };
    page.key.oninput = () => {
      const printable = /^[!-~]*$/.test(page.key.value.trim()); // what a header can hold
      page.key.setCustomValidity(printable ? "" : "A key is one word of ASCII characters.");
    };
    page.lock.onclose = () => reject(refusal); // which does nothing if there is a key
  }).finally(() => (asking = undefined));
  return asking;
}
