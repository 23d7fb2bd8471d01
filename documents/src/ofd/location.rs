//! Paths in a package: names of ZIP entries, and ST_Loc as XML files have it (GB/T 33190-2016 7.3).

/// The path that the name of an entry stands for: without a leading `/`; folders keep the one behind. `None` for
/// names that mean different things to different readers, or lead out of the package.
pub(super) fn entry(name: &str) -> Option<&str> {
    let path = name.strip_prefix('/').unwrap_or(name);
    let is_odd = |letter: char| letter.is_control() || matches!(letter, '\\' | ':');
    if path.is_empty() || path.contains(is_odd) {
        return None;
    }
    let plain = path.strip_suffix('/').unwrap_or(path);
    plain
        .split('/')
        .all(|part| !matches!(part, "" | "." | ".."))
        .then_some(path)
}

/// The path that `location`, as it stands in the file `base`, means. `None` if it leads out of the package.
pub(super) fn resolve(base: &str, location: &str) -> Option<String> {
    let location = location.trim();
    let (start, rest) = match location.strip_prefix('/') {
        Some(rest) => ("", rest),
        None => (folder(base), location),
    };
    let mut parts: Vec<&str> = start.split('/').filter(|part| !part.is_empty()).collect();
    for part in rest.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()?),
            part => parts.push(part),
        }
    }
    Some(parts.join("/"))
}

/// The folder of a file, without a `/` behind it.
pub(super) fn folder(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(folder, _)| folder)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locations_are_found_from_the_file_they_stand_in() {
        for (base, location, path) in [
            ("OFD.xml", "Doc_0/Document.xml", "Doc_0/Document.xml"),
            (
                "Doc_0/Document.xml",
                "Pages/Page_0/Content.xml",
                "Doc_0/Pages/Page_0/Content.xml",
            ),
            (
                "Doc_0/Signs/Signatures.xml",
                "/Doc_0/Signs/S.xml",
                "Doc_0/Signs/S.xml",
            ),
            ("Doc_0/Signs/Signatures.xml", "./../Res/a.png", "Doc_0/Res/a.png"),
            ("OFD.xml", " Doc_0//Document.xml\n", "Doc_0/Document.xml"),
        ] {
            assert_eq!(resolve(base, location).as_deref(), Some(path), "{location}");
        }
        assert_eq!(resolve("Doc_0/a.xml", "../../etc/passwd"), None);
        assert_eq!(resolve("a.xml", "/.."), None);
    }

    #[test]
    fn names_that_lead_elsewhere_are_none() {
        assert_eq!(entry("/Doc_0/a.xml"), Some("Doc_0/a.xml"));
        assert_eq!(entry("Doc_0/"), Some("Doc_0/"));
        for name in [
            "", "/", "../a", "a/../b", "a//b", "./a", "a\\b", "c:/a", "//a", "a\0b",
        ] {
            assert_eq!(entry(name), None, "{name:?}");
        }
    }
}
