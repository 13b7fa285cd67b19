//! How a path in a call becomes an absolute one: `~` and relative paths start at the user's home.
use crate::users::User;

/// Without `.`, `..`, doubled and trailing slashes, by text alone: symbolic links are not looked at.
pub(crate) fn normalize(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

/// `default_directory` stands in for an empty path.
pub(crate) fn resolve(path: &str, user: &User, default_directory: Option<&str>) -> Result<String, String> {
    if path.contains('\0') {
        return Err("a path cannot hold a NUL character".to_owned());
    }
    let path = if path.is_empty() { default_directory.unwrap_or_default() } else { path };
    if let Some(rest) = path.strip_prefix('~') {
        return match rest.strip_prefix('/') {
            None if !rest.is_empty() => Err(format!("cannot expand user-specific home directory in '{path}'")),
            _ => Ok(normalize(&format!("{}/{rest}", user.home))),
        };
    }
    if path.starts_with('/') { Ok(normalize(path)) } else { Ok(normalize(&format!("{}/{path}", user.home))) }
}

pub(crate) fn parent(path: &str) -> &str {
    match path.rfind('/') {
        Some(at) if at > 0 => path.split_at(at).0,
        _ => "/",
    }
}

pub(crate) fn file_name(path: &str) -> &str {
    match path.rsplit('/').next() {
        Some("") | None => "/",
        Some(name) => name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_resolve_from_the_home_directory() {
        let user = User { name: "u".into(), uid: 1, gid: 1, home: "/home/u".into(), shell: "/bin/sh".into() };
        for (path, expected) in [
            ("/a//b/../c/", "/a/c"),
            ("a/b", "/home/u/a/b"),
            ("~", "/home/u"),
            ("~/x", "/home/u/x"),
            ("../v", "/home/v"),
            ("/../..", "/"),
            ("", "/work"),
        ] {
            assert_eq!(resolve(path, &user, Some("/work")).unwrap(), expected);
        }
        assert_eq!(resolve("", &user, None).unwrap(), "/home/u");
        assert!(resolve("~other/x", &user, None).is_err());
        assert!(resolve("a\0b", &user, None).is_err());
        assert_eq!((parent("/a/b"), parent("/a"), file_name("/a/b"), file_name("/")), ("/a", "/", "b", "/"));
    }
}
