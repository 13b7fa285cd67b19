/** A console's bytes as plain text, and where they may be cut: never within a character or a terminal sequence. */

/**
 * Sequences that a terminal obeys (ECMA-48: CSI with parameters, strings such as a window's title, and the short ones), and control
 * characters other than newline and tab.
 */
const terminalSequences =
  // oxlint-disable-next-line no-control-regex
  /\u001b(?:\[[0-?]*[ -/]*[@-~]|[\]PX^_][^\u0007\u001b]*(?:\u0007|\u001b\\)|[ -/]*[0-~])|[\u0000-\u0008\u000b-\u001f\u007f-\u009f]/g;

/** The beginning of one at the end of a text, as it looks where its rest has not been printed yet. */
// oxlint-disable-next-line no-control-regex
const begunSequence = /\u001b(?:\[[0-?]*[ -/]*|[\]PX^_][^\u0007\u001b]*\u001b?|[ -/]*)$/;

/** What is longer is no sequence, but a guest that printed an escape character and then something else. */
const longestSequenceBytes = 1_024;

/** Without anything that only a terminal understands: lines and tabs are kept. */
export function plainText(bytes: Buffer): string {
  return bytes.toString("utf8").replaceAll(terminalSequences, "");
}

/** The bytes up to the last complete character and sequence. What follows makes sense only with bytes that are still to come. */
export function completePart(bytes: Buffer): Buffer {
  const end = bytes.subarray(-longestSequenceBytes).toString("latin1");
  const begun = begunSequence.exec(end)?.[0].length ?? 0;
  return bytes.subarray(0, bytes.length - Math.max(begun, begunCharacterBytes(bytes)));
}

/** The bytes behind the first line, which is a fragment where older output was dropped; all of them where no line ends. */
export function withoutFirstLine(bytes: Buffer): Buffer {
  return bytes.subarray(bytes.indexOf("\n") + 1);
}

/** How many bytes at the end are the beginning of a UTF-8 character that has more. */
function begunCharacterBytes(bytes: Buffer): number {
  for (let back = 1; back <= Math.min(3, bytes.length); back++) {
    const byte = bytes.at(-back) ?? 0;
    const isContinuation = (byte & 0xc0) === 0x80;
    if (isContinuation) continue;
    const length = byte >= 0xf0 ? 4 : byte >= 0xe0 ? 3 : byte >= 0xc0 ? 2 : 1;
    return length > back ? back : 0;
  }
  return 0;
}
