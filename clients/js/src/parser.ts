// Owns the parser of event streams (WHATWG HTML §9.2.6). It knows no event of the hub.

/** One block: `type` and `data` are empty for a block with an id only. */
export type OnBlock = (type: string, data: string, id: string) => void;

/** Returns a function taking decoded text in pieces of any size. The byte order mark is the decoder's work. */
export function parser(onBlock: OnBlock, onRetry: (ms: number) => void): (text: string) => void {
  let rest = '';
  let type = '';
  let data: string[] = [];
  let id = '';
  let named = false;
  let afterCr = false;

  const line = (text: string) => {
    if (!text) {
      if (data.length || named) onBlock(data.length ? type || 'message' : '', data.join('\n'), id);
      type = '';
      data = [];
      named = false;
      return;
    }
    const colon = text.indexOf(':');
    const field = colon < 0 ? text : text.slice(0, colon);
    const value = colon < 0 ? '' : text.slice(text[colon + 1] === ' ' ? colon + 2 : colon + 1);
    if (field === 'data') data.push(value);
    else if (field === 'event') type = value;
    else if (field === 'id' && !value.includes('\0')) {
      id = value;
      named = true;
    } else if (field === 'retry' && /^\d+$/.test(value)) onRetry(+value);
  };

  return (text) => {
    // A CR at the end of a piece ends its line at once; a LF at the start of the next piece belongs to it.
    if (!text) return;
    if (afterCr && text[0] === '\n') text = text.slice(1);
    afterCr = text.endsWith('\r');
    const lines = (rest + text).split(/\r\n|\r|\n/);
    rest = lines.pop()!;
    lines.forEach(line);
  };
}
