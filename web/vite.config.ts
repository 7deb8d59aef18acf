import react from "@vitejs/plugin-react";
import { defineConfig } from "vitest/config";

const server = "http://127.0.0.1:8600";

export default defineConfig({
	// Relative, so that the build also works under the path of a public_url.
	base: "./",
	plugins: [react()],
	build: {
		// The folder that the Go binary embeds; public/.gitkeep keeps it in git.
		outDir: "../internal/console/dist",
		emptyOutDir: true,
	},
	server: {
		proxy: { "/readyz": server, "/healthz": server },
	},
	test: {
		environment: "happy-dom",
		restoreMocks: true,
		unstubGlobals: true,
	},
});
