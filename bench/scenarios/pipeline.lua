-- Sixteen requests in one write.
dofile(debug.getinfo(1, "S").source:sub(2):match("(.*/)") .. "report.lua")

local batch

function init(args)
    local requests = {}
    for i = 1, 16 do
        requests[i] = wrk.format()
    end
    batch = table.concat(requests)
end

function request()
    return batch
end
