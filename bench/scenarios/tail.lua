-- Files from the large corpus: `uniform` percent of the requests over all of them, the rest over 2,000 popular ones.
-- Arguments: uniform percent, seed. The generator is Lehmer's (Park and Miller): products stay below 2^53.
dofile(debug.getinfo(1, "S").source:sub(2):match("(.*/)") .. "report.lua")

local FILES, POPULAR, A_DIRECTORY = 200000, 2000, 1000
local uniform, state

function init(args)
    uniform = tonumber(args[1])
    state = tonumber(args[2])
end

local floor = math.floor

local function below(n)
    state = (state * 16807) % 2147483647
    return floor(state / 2147483647 * n)
end

function request()
    local file
    if below(100) < uniform then
        file = below(FILES)
    else
        -- The first two directories: popular files were made together, and their inodes lie together.
        file = below(POPULAR)
    end
    return "GET /" .. floor(file / A_DIRECTORY) .. "/" .. file .. ".html HTTP/1.1\r\nHost: bench\r\n\r\n"
end
