// The styles of the components in use, not the whole library's: a third of the size.
import "@mantine/core/styles/baseline.css";
import "@mantine/core/styles/default-css-variables.css";
import "@mantine/core/styles/global.css";
import "@mantine/core/styles/UnstyledButton.css";
import "@mantine/core/styles/Paper.css";
import "@mantine/core/styles/VisuallyHidden.css";
import "@mantine/core/styles/Loader.css";
import "@mantine/core/styles/Button.css";
import "@mantine/core/styles/Group.css";
import "@mantine/core/styles/Stack.css";
import "@mantine/core/styles/Container.css";
import "@mantine/core/styles/Text.css";
import "@mantine/core/styles/Title.css";
import "@mantine/core/styles/Anchor.css";
import "@mantine/core/styles/Code.css";
import "./theme.css";

import { createTheme, type MantineColorsTuple } from "@mantine/core";

const copper: MantineColorsTuple = [
	"#fdf2e8",
	"#f9e1cc",
	"#f3c79f",
	"#f0a35e",
	"#e28434",
	"#cf6a17",
	"#c05d0e",
	"#b4540a",
	"#944407",
	"#753605",
];

export const theme = createTheme({
	colors: { copper },
	primaryColor: "copper",
	primaryShade: { light: 7, dark: 5 },
	defaultRadius: "md",
	focusRing: "auto",
	fontFamily: "system-ui, sans-serif",
	fontFamilyMonospace: "ui-monospace, SFMono-Regular, Menlo, Consolas, monospace",
	headings: { fontFamily: "system-ui, sans-serif" },
});
