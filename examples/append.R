#!/usr/bin/env Rscript
# Records audit events from R. Copy the function; it needs httr2 and jsonlite.
library(httr2)

audit <- function(event, message = "", meta = NULL, tries = 10) {
  url <- Sys.getenv("AUDIT_LOG_URL", "http://127.0.0.1:48291/append")
  # null = "null" keeps an empty meta; digits = NA keeps all digits of numbers.
  body <- list(event = event, message = message, meta = meta)
  request <- request(url) |>
    req_body_json(body, auto_unbox = TRUE, digits = NA, null = "null") |>
    req_options(noproxy = "*") |> # a proxy would take the event out of the pod
    req_timeout(45) |>
    req_error(is_error = \(answer) FALSE)
  for (attempt in seq_len(tries)) {
    answer <- tryCatch(req_perform(request), error = identity)
    if (inherits(answer, "error")) {
      problem <- paste(conditionMessage(answer), conditionMessage(answer$parent %||% answer))
      again <- grepl("Failed to connect|Could not connect|Couldn't connect|Connection refused", problem)
    } else {
      if (resp_status(answer) == 200) return(invisible(resp_body_json(answer)))
      problem <- resp_body_string(answer)
      passing <- resp_status(answer) >= 500 || resp_status(answer) %in% c(408, 429)
      # Only a refusal that says so left nothing on disk; any other may, and sending again would leave it twice.
      again <- passing && identical(resp_header(answer, "Audit-Written"), "no")
    }
    if (!again || attempt == tries) stop(event, " was not recorded: ", problem, call. = FALSE)
    Sys.sleep(1)
  }
}

`%||%` <- function(value, default) if (is.null(value)) default else value

audit("DATA_EXPORT", "Exported results to \"CSV\"", list(path = "/work/output/results.csv", rows = 12500))
