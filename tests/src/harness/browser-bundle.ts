/** The SDK as a bundler makes it ready for browsers. */
import path from "node:path";
import { repositoryRoot } from "@wrenn/cli";
import { build } from "vite";

export interface BrowserBundle {
  readonly code: string;
  /** What was asked for that no browser has. */
  readonly nodeModules: readonly string[];
}

/** Everything that `@wrenn/sdk` exports, as one minified module. `project` has it in its node_modules. */
export async function bundleForBrowser(project = repositoryRoot): Promise<BrowserBundle> {
  const nodeModules: string[] = [];
  const output = await build({
    root: project,
    configFile: false,
    logLevel: "silent",
    plugins: [
      {
        name: "what-browsers-do-not-have",
        enforce: "pre",
        resolveId: (id) => {
          if (/^node:|^(buffer|crypto|events|fs|http|https|net|stream|util)$/.test(id)) nodeModules.push(id);
          return null;
        },
      },
    ],
    build: {
      write: false,
      minify: true,
      lib: { entry: path.join(project, "node_modules/@wrenn/sdk/dist/index.js"), formats: ["es"], fileName: "sdk" },
    },
  });
  const [bundle] = [output].flat();
  if (bundle === undefined || !("output" in bundle)) throw new Error("nothing was bundled");
  const code = bundle.output.map((chunk) => ("code" in chunk ? chunk.code : "")).join("");
  return { code, nodeModules };
}
