-- A connection per request.
dofile(debug.getinfo(1, "S").source:sub(2):match("(.*/)") .. "report.lua")

wrk.headers["Connection"] = "close"
