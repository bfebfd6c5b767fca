import { defineConfig } from "vite";

export default defineConfig({
  esbuild: { jsx: "automatic" },
  server: { host: "127.0.0.1", strictPort: true },
  // Only because `rowcast` is a link to this repository's client here: it is to find the page's own
  // React, and to be read anew when it changes. A package of the registry needs neither.
  resolve: { preserveSymlinks: true },
  optimizeDeps: { exclude: ["rowcast"], include: ["react", "react-dom/client", "react/jsx-dev-runtime"] },
});
