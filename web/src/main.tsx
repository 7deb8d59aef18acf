import { MantineProvider } from "@mantine/core";
import { StrictMode } from "react";
import { createRoot } from "react-dom/client";
import { App } from "./app";
import { theme } from "./theme";

const root = document.getElementById("root");
if (!root) {
	throw new Error("index.html has no #root to draw into");
}
createRoot(root).render(
	<StrictMode>
		<MantineProvider theme={theme} defaultColorScheme="auto">
			{/* The folder of this page: Muster may live under a path of its host. */}
			<App base={new URL(".", document.baseURI)} />
		</MantineProvider>
	</StrictMode>,
);
