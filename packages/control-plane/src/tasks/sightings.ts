/** Remembers what was suspected on earlier looks at a host, so that only what is seen twice is acted on. */

export class Sightings {
  readonly #minAgeMs: number;
  readonly #firstSeen = new Map<string, number>();
  readonly #now: () => number;
  #thisLook = new Set<string>();

  /** Two looks count as two only when this much time is between them: nudges can make looks follow each other closely. */
  constructor(minAgeMs: number, now: () => number = () => performance.now()) {
    this.#minAgeMs = minAgeMs;
    this.#now = now;
  }

  /** Notes the suspicion and answers whether it was there on every look since one that is old enough. */
  confirm(suspicion: string): boolean {
    this.#thisLook.add(suspicion);
    const first = this.#firstSeen.get(suspicion);
    if (first !== undefined) return this.#now() - first >= this.#minAgeMs;
    this.#firstSeen.set(suspicion, this.#now());
    return false;
  }

  /** Forgets what this look did not show. */
  endLook(): void {
    for (const suspicion of this.#firstSeen.keys()) {
      if (!this.#thisLook.has(suspicion)) this.#firstSeen.delete(suspicion);
    }
    this.#thisLook = new Set();
  }
}
