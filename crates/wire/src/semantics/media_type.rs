//! The media type of a file, by the extension of its name.
//! Goal: what browsers need to run a site, without a file of the system's or a dependency; text is UTF-8.
//! Costs: a binary search over packed extensions, about eight comparisons; nothing is allocated.

/// The media type for the file at `path`, [`DEFAULT`] if its extension is unknown. Case of letters does not matter.
pub fn from_path(path: &[u8]) -> &'static str {
    extension(path).and_then(pack).and_then(find).unwrap_or(DEFAULT)
}

/// What is sent for files of no known kind (RFC 9110 section 8.3): browsers save them instead of showing them.
pub const DEFAULT: &str = "application/octet-stream";

/// What follows the last dot of the last segment; a dot at the segment's start makes no extension.
fn extension(path: &[u8]) -> Option<&[u8]> {
    let tail = &path[path.len().saturating_sub(LONGEST + 2)..];
    let dot = tail.iter().rposition(|&b| b == b'.' || b == b'/')?;
    let named = dot > 0 && tail[dot - 1] != b'/';
    (tail[dot] == b'.' && named).then(|| &tail[dot + 1..])
}

fn find(extension: u128) -> Option<&'static str> {
    TYPES.binary_search_by_key(&extension, |entry| entry.0).ok().map(|at| TYPES[at].1)
}

/// An extension in lower case as one integer: comparing it is one instruction or two.
const fn pack(extension: &[u8]) -> Option<u128> {
    if extension.is_empty() || extension.len() > LONGEST {
        return None;
    }
    let (mut packed, mut i) = (0, 0);
    while i < extension.len() {
        packed = packed << 8 | extension[i].to_ascii_lowercase() as u128;
        i += 1;
    }
    Some(packed)
}

/// [`BY_KIND`] packed and sorted while compiling.
const TYPES: [(u128, &str); BY_KIND.len()] = {
    let mut types = [(0, ""); BY_KIND.len()];
    let mut i = 0;
    while i < types.len() {
        let entry = (pack(BY_KIND[i].0.as_bytes()).expect("no extension is longer than LONGEST"), BY_KIND[i].1);
        let mut place = i;
        while place > 0 && types[place - 1].0 > entry.0 {
            types[place] = types[place - 1];
            place -= 1;
        }
        assert!(place == 0 || types[place - 1].0 != entry.0, "an extension stands twice");
        types[place] = entry;
        i += 1;
    }
    types
};

const LONGEST: usize = 16;

/// Extensions and their types as registered with IANA, or as browsers know them where none is.
#[rustfmt::skip]
const BY_KIND: &[(&str, &str)] = &[
    // pages and what they load
    ("html", "text/html; charset=utf-8"), ("htm", "text/html; charset=utf-8"), ("shtml", "text/html; charset=utf-8"),
    ("xhtml", "application/xhtml+xml; charset=utf-8"), ("css", "text/css; charset=utf-8"),
    ("js", "text/javascript; charset=utf-8"), ("mjs", "text/javascript; charset=utf-8"), ("cjs", "text/javascript; charset=utf-8"),
    ("json", "application/json"), ("map", "application/json"), ("jsonld", "application/ld+json"),
    ("geojson", "application/geo+json"), ("topojson", "application/json"), ("webmanifest", "application/manifest+json"),
    ("wasm", "application/wasm"), ("appcache", "text/cache-manifest; charset=utf-8"),
    ("htc", "text/x-component; charset=utf-8"), ("vtt", "text/vtt; charset=utf-8"),
    // text
    ("txt", "text/plain; charset=utf-8"), ("text", "text/plain; charset=utf-8"), ("log", "text/plain; charset=utf-8"),
    ("conf", "text/plain; charset=utf-8"), ("cfg", "text/plain; charset=utf-8"), ("ini", "text/plain; charset=utf-8"),
    ("md", "text/markdown; charset=utf-8"), ("markdown", "text/markdown; charset=utf-8"), ("csv", "text/csv; charset=utf-8"),
    ("tsv", "text/tab-separated-values; charset=utf-8"), ("ics", "text/calendar; charset=utf-8"),
    ("vcf", "text/vcard; charset=utf-8"), ("vcard", "text/vcard; charset=utf-8"), ("rtx", "text/richtext; charset=utf-8"),
    ("srt", "text/plain; charset=utf-8"), ("diff", "text/x-diff; charset=utf-8"), ("patch", "text/x-diff; charset=utf-8"),
    ("c", "text/x-c; charset=utf-8"), ("h", "text/x-c; charset=utf-8"), ("cpp", "text/x-c; charset=utf-8"),
    ("rs", "text/plain; charset=utf-8"), ("go", "text/plain; charset=utf-8"), ("py", "text/x-python; charset=utf-8"),
    ("sh", "text/x-sh; charset=utf-8"), ("tsx", "text/plain; charset=utf-8"),
    ("jsx", "text/javascript; charset=utf-8"), ("sql", "text/plain; charset=utf-8"),
    // structured data
    ("xml", "text/xml; charset=utf-8"), ("xsl", "text/xml; charset=utf-8"), ("xslt", "application/xslt+xml"),
    ("xsd", "text/xml; charset=utf-8"), ("dtd", "application/xml-dtd"), ("rss", "application/rss+xml"),
    ("atom", "application/atom+xml"), ("rdf", "application/rdf+xml"), ("yaml", "application/yaml"), ("yml", "application/yaml"),
    ("toml", "application/toml"), ("kml", "application/vnd.google-earth.kml+xml"), ("kmz", "application/vnd.google-earth.kmz"),
    ("gpx", "application/gpx+xml"),
    // pictures
    ("png", "image/png"), ("jpg", "image/jpeg"), ("jpeg", "image/jpeg"), ("jpe", "image/jpeg"), ("jfif", "image/jpeg"),
    ("gif", "image/gif"), ("webp", "image/webp"), ("avif", "image/avif"), ("apng", "image/apng"), ("svg", "image/svg+xml"),
    ("svgz", "image/svg+xml"), ("ico", "image/x-icon"), ("cur", "image/x-icon"), ("bmp", "image/bmp"), ("tif", "image/tiff"),
    ("tiff", "image/tiff"), ("heic", "image/heic"), ("heif", "image/heif"), ("jxl", "image/jxl"), ("jp2", "image/jp2"),
    ("wbmp", "image/vnd.wap.wbmp"), ("psd", "image/vnd.adobe.photoshop"), ("djvu", "image/vnd.djvu"), ("tga", "image/x-tga"),
    // sound
    ("mp3", "audio/mpeg"), ("m4a", "audio/mp4"), ("aac", "audio/aac"), ("ogg", "audio/ogg"), ("oga", "audio/ogg"),
    ("opus", "audio/ogg"), ("flac", "audio/flac"), ("wav", "audio/wav"), ("weba", "audio/webm"), ("mid", "audio/midi"),
    ("midi", "audio/midi"), ("aif", "audio/aiff"), ("aiff", "audio/aiff"), ("mka", "audio/x-matroska"),
    // film
    ("mp4", "video/mp4"), ("m4v", "video/mp4"), ("webm", "video/webm"), ("ogv", "video/ogg"), ("mov", "video/quicktime"),
    ("avi", "video/x-msvideo"), ("mkv", "video/x-matroska"), ("mpg", "video/mpeg"), ("mpeg", "video/mpeg"), ("ts", "video/mp2t"), ("m2ts", "video/mp2t"),
    ("3gp", "video/3gpp"), ("3g2", "video/3gpp2"), ("flv", "video/x-flv"), ("wmv", "video/x-ms-wmv"), ("asf", "video/x-ms-asf"),
    ("m3u8", "application/vnd.apple.mpegurl"), ("m3u", "audio/x-mpegurl"), ("mpd", "application/dash+xml"), ("m4s", "video/iso.segment"),
    // fonts
    ("woff", "font/woff"), ("woff2", "font/woff2"), ("ttf", "font/ttf"), ("otf", "font/otf"), ("ttc", "font/collection"),
    ("eot", "application/vnd.ms-fontobject"),
    // documents
    ("pdf", "application/pdf"), ("ps", "application/postscript"), ("eps", "application/postscript"), ("ai", "application/postscript"),
    ("rtf", "application/rtf"), ("epub", "application/epub+zip"), ("mobi", "application/x-mobipocket-ebook"),
    ("doc", "application/msword"), ("xls", "application/vnd.ms-excel"), ("ppt", "application/vnd.ms-powerpoint"),
    ("docx", "application/vnd.openxmlformats-officedocument.wordprocessingml.document"),
    ("xlsx", "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"),
    ("pptx", "application/vnd.openxmlformats-officedocument.presentationml.presentation"),
    ("odt", "application/vnd.oasis.opendocument.text"), ("ods", "application/vnd.oasis.opendocument.spreadsheet"),
    ("odp", "application/vnd.oasis.opendocument.presentation"), ("odg", "application/vnd.oasis.opendocument.graphics"),
    // archives and programs
    ("zip", "application/zip"), ("gz", "application/gzip"), ("tgz", "application/gzip"), ("bz2", "application/x-bzip2"),
    ("xz", "application/x-xz"), ("zst", "application/zstd"), ("br", "application/x-brotli"), ("7z", "application/x-7z-compressed"),
    ("rar", "application/vnd.rar"), ("tar", "application/x-tar"), ("jar", "application/java-archive"),
    ("war", "application/java-archive"), ("apk", "application/vnd.android.package-archive"), ("deb", "application/vnd.debian.binary-package"),
    ("rpm", "application/x-rpm"), ("dmg", "application/x-apple-diskimage"), ("iso", "application/x-iso9660-image"),
    ("swf", "application/x-shockwave-flash"), ("torrent", "application/x-bittorrent"), ("sqlite", "application/vnd.sqlite3"),
    ("der", "application/x-x509-ca-cert"), ("crt", "application/x-x509-ca-cert"), ("pem", "application/x-pem-file"),
    ("asc", "application/pgp-signature"), ("sig", "application/pgp-signature"), ("mobileconfig", "application/x-apple-aspen-config"),
    // models
    ("glb", "model/gltf-binary"), ("gltf", "model/gltf+json"), ("obj", "model/obj"), ("stl", "model/stl"), ("usdz", "model/vnd.usdz+zip"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_extension_of_the_table_is_found_in_any_case() {
        for (extension, media_type) in BY_KIND {
            assert_eq!(from_path(format!("/a/b.{extension}").as_bytes()), *media_type);
            assert_eq!(from_path(format!("b.{}", extension.to_uppercase()).as_bytes()), *media_type);
        }
    }

    #[test]
    fn only_the_last_extension_of_the_last_segment_counts() {
        for (path, expected) in [
            ("/a.html/b", DEFAULT),
            ("/a.tar.gz", "application/gzip"),
            ("/.html", DEFAULT),
            (".html", DEFAULT),
            ("/a.", DEFAULT),
            ("/", DEFAULT),
            ("", DEFAULT),
            ("html", DEFAULT),
            ("/a.htmlx", DEFAULT),
            ("/a.extremely-long-extension-of-no-kind", DEFAULT),
            ("/a.mobileconfig", "application/x-apple-aspen-config"),
            ("/a.b\0", DEFAULT),
            ("/a/..css", "text/css; charset=utf-8"),
        ] {
            assert_eq!(from_path(path.as_bytes()), expected, "{path}");
        }
    }

    #[test]
    fn all_text_says_its_charset() {
        for (extension, media_type) in BY_KIND {
            assert!(!media_type.starts_with("text/") || media_type.ends_with("; charset=utf-8"), "{extension}");
        }
    }
}
