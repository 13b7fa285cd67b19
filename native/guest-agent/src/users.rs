//! Users and groups as /etc/passwd and /etc/group list them. A static program has no NSS to ask.
use std::collections::HashMap;
use std::fs;

const PASSWD: &str = "/etc/passwd";
const GROUP: &str = "/etc/group";

/// Who calls act for until `/init` names another, where there is such a user.
const PREFERRED_DEFAULT: &str = "user";
const FALLBACK_DEFAULT: &str = "root";

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct User {
    pub(crate) name: String,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) home: String,
    pub(crate) shell: String,
}

fn read(path: &str) -> String {
    fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
}

fn parse_user(line: &str) -> Option<User> {
    let mut fields = line.split(':');
    let name = fields.next()?;
    let _password = fields.next()?;
    let uid = fields.next()?.parse().ok()?;
    let gid = fields.next()?.parse().ok()?;
    let _comment = fields.next()?;
    let home = fields.next()?;
    let shell = fields.next().unwrap_or_default().trim();
    Some(User {
        name: name.to_owned(),
        uid,
        gid,
        home: if home.is_empty() { "/".to_owned() } else { home.to_owned() },
        shell: if shell.is_empty() { "/bin/sh".to_owned() } else { shell.to_owned() },
    })
}

fn find_user(passwd: &str, matches: impl Fn(&User) -> bool) -> Option<User> {
    passwd.lines().filter_map(parse_user).find(matches)
}

/// Name, gid and members of each group.
fn groups(group: &str) -> impl Iterator<Item = (&str, u32, &str)> {
    group.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        let _password = fields.next()?;
        let gid = fields.next()?.parse().ok()?;
        Some((name, gid, fields.next().unwrap_or_default().trim()))
    })
}

fn supplementary(group: &str, user: &User) -> Vec<u32> {
    let mut gids = vec![user.gid];
    for (_, gid, members) in groups(group) {
        if gid != user.gid && members.split(',').any(|member| member == user.name) {
            gids.push(gid);
        }
    }
    gids
}

impl User {
    pub(crate) fn named(name: &str) -> Option<Self> {
        find_user(&read(PASSWD), |user| user.name == name)
    }

    pub(crate) fn fallback() -> Self {
        let passwd = read(PASSWD);
        find_user(&passwd, |user| user.name == PREFERRED_DEFAULT)
            .or_else(|| find_user(&passwd, |user| user.name == FALLBACK_DEFAULT))
            .unwrap_or_else(|| Self {
                name: FALLBACK_DEFAULT.to_owned(),
                uid: 0,
                gid: 0,
                home: "/root".to_owned(),
                shell: "/bin/sh".to_owned(),
            })
    }

    /// Every group the user is in, the primary one first.
    pub(crate) fn group_ids(&self) -> Vec<u32> {
        supplementary(&read(GROUP), self)
    }
}

/// Names for many ids at once, reading each file no more than once.
#[derive(Default)]
pub(crate) struct Names {
    passwd: Option<String>,
    group: Option<String>,
    users: HashMap<u32, String>,
    groups: HashMap<u32, String>,
}

impl Names {
    /// The user's name, or the number where it has none.
    pub(crate) fn user(&mut self, uid: u32) -> String {
        let passwd = self.passwd.get_or_insert_with(|| read(PASSWD));
        let find = || find_user(passwd, |user| user.uid == uid).map_or_else(|| uid.to_string(), |user| user.name);
        self.users.entry(uid).or_insert_with(find).clone()
    }

    pub(crate) fn group(&mut self, gid: u32) -> String {
        let group = self.group.get_or_insert_with(|| read(GROUP));
        let name = groups(group).find(|(_, id, _)| *id == gid).map(|(name, ..)| name.to_owned());
        self.groups.entry(gid).or_insert_with(|| name.unwrap_or_else(|| gid.to_string())).clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXAMPLE: &str = "root:x:0:0:root:/root:/bin/bash\n# a comment\nbroken:x:zero:0::/:/bin/sh\n\
        user:x:1000:1000:A, B,,:/home/user:/bin/zsh\nbare:x:7:8:::\n";

    #[test]
    fn users_are_read_and_broken_lines_skipped() {
        let user = find_user(EXAMPLE, |user| user.name == "user").unwrap();
        assert_eq!(
            (user.uid, user.gid, user.home.as_str(), user.shell.as_str()),
            (1000, 1000, "/home/user", "/bin/zsh")
        );
        let bare = find_user(EXAMPLE, |user| user.name == "bare").unwrap();
        assert_eq!((bare.home.as_str(), bare.shell.as_str()), ("/", "/bin/sh"));
        assert_eq!(find_user(EXAMPLE, |user| user.name == "broken"), None);
    }

    #[test]
    fn a_user_is_in_the_primary_group_and_in_those_that_list_it() {
        let user = find_user(EXAMPLE, |user| user.name == "user").unwrap();
        let group = "root:x:0:\nuser:x:1000:user\nsudo:x:27:other,user\nusers:x:100:superuser\n";
        assert_eq!(supplementary(group, &user), [1000, 27]);
    }
}
