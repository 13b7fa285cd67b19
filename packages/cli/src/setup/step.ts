/** One thing that must be so before Wrenn can run, and how to make it so. */

export interface SetupStep {
  /** What it does, as shown: "Building the root filesystem". */
  readonly name: string;
  /** Roughly, on two cores of an ordinary server, for whoever watches. */
  readonly expectedSeconds: number;
  /** What it needs free on the file system that holds this path. */
  readonly disk?: { readonly path: string; readonly bytes: number };
  readonly needsRoot: boolean;
  /** Whether nothing is to be done. Takes milliseconds: it is asked at every start. */
  isDone(): Promise<boolean>;
  /** Does it. Whatever an interrupted earlier run left must not matter. */
  run(progress: StepProgress): Promise<void>;
}

export interface StepProgress {
  /** Shows what is under way. */
  readonly say: (line: string) => void;
  /** Aborts when the set-up is interrupted. */
  readonly signal: AbortSignal;
}
