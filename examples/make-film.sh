#!/bin/sh
# Makes site/media/film.mp4, a file of exactly 100 MiB that plays: the short film, then one "free"
# box of filling, which players pass over. The bytes are the same on every machine.
set -eu
cd "$(dirname "$0")/site/media"
size=104857600
fill=$((size - $(wc -c < short.mp4)))
byte() { printf '%b' "\\0$(printf '%o' $((fill >> $1 & 255)))"; }
{
    cat short.mp4
    byte 24; byte 16; byte 8; byte 0; printf free
    yes 'amped never waits on the disk.' | head -c $((fill - 8))
} > film.mp4.part
mv film.mp4.part film.mp4
