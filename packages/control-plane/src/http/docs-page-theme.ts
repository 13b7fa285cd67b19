/** How the page at `/docs` looks beyond Swagger UI's own style: calmer, in the reader's fonts, and dark where that is preferred. */

export const pageStyle = `
:root { color-scheme: light dark; }
body, .swagger-ui, .swagger-ui .info .title, .swagger-ui .opblock-tag, .swagger-ui .opblock .opblock-summary-description,
.swagger-ui .btn, .swagger-ui select, .swagger-ui label, .swagger-ui input, .swagger-ui .info li, .swagger-ui .info p,
.swagger-ui .info table, .swagger-ui table thead tr th, .swagger-ui .response-col_status, .swagger-ui .tab li,
.swagger-ui .opblock .opblock-section-header h4, .swagger-ui .opblock-description-wrapper p, .swagger-ui section.models h4 {
  font-family: system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", sans-serif;
}
.swagger-ui .wrapper { max-width: 1120px; }
.swagger-ui .info { margin: 32px 0 16px; }
.swagger-ui .info .title { font-weight: 650; letter-spacing: -0.02em; }
/* There is one server: the one that sent this page. */
.swagger-ui .scheme-container .schemes > .schemes-server-container { display: none; }
.swagger-ui .scheme-container { margin: 0 0 8px; padding: 12px 0; background: none; box-shadow: none; }
.swagger-ui .scheme-container .schemes { justify-content: flex-end; }
.swagger-ui .opblock-tag { font-size: 19px; font-weight: 600; }
.swagger-ui .opblock-tag small { font-size: 14px; }
.swagger-ui .opblock { border-radius: 8px; box-shadow: none; }
.swagger-ui .opblock .opblock-summary-method { border-radius: 6px; min-width: 72px; padding: 5px 0; font-size: 12px; }
.swagger-ui .opblock .opblock-summary-path { font-size: 14px; font-weight: 500; }
.swagger-ui .opblock .opblock-summary-description { font-size: 14px; text-align: right; }
.swagger-ui .responses-inner .response-col_description__inner p { margin: 0 0 4px; }
.swagger-ui .filter .operation-filter-input { border-width: 1px; border-radius: 8px; }
`;

/** Swagger UI has dark colours, but does not ask what the reader prefers. */
export const followColorScheme = `
const prefersDark = window.matchMedia("(prefers-color-scheme: dark)");
const follow = () => document.documentElement.classList.toggle("dark-mode", prefersDark.matches);
prefersDark.addEventListener("change", follow);
follow();
`;
