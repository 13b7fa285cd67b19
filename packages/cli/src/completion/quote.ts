/** Text as one word of a POSIX shell or of fish, whatever is in it. */
export function quoteForShell(text: string): string {
  return /^[\w./:=+-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`;
}
