//! Whom the server becomes once it has bound its addresses.
//!
//! Goal: a name that does not exist is found by `amped check`. Names come from /etc/passwd and /etc/group; where a directory
//! service keeps them, numbers do.

use std::fs;

use amped_runtime::confine::Identity;

/// A user, by name and numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// As typed.
    pub name: String,
    /// Whom that is.
    pub identity: Identity,
}

impl User {
    /// `www-data`, `33`, `33:33`.
    ///
    /// # Errors
    /// What to type instead.
    pub fn parse(typed: &str) -> Result<User, String> {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        User::find(typed, &read("/etc/passwd"), &read("/etc/group"))
    }

    fn find(typed: &str, users: &str, groups: &str) -> Result<User, String> {
        let (user, group) = typed.split_once(':').map_or((typed, None), |(user, group)| (user, Some(group)));
        let lines = || users.lines().map(|line| line.split(':').collect::<Vec<_>>());
        let known = lines().find(|fields| fields.first() == Some(&user) || fields.get(2) == Some(&user));
        let number = |fields: &Vec<&str>, place: usize| fields.get(place).and_then(|field| field.parse::<u32>().ok());
        let id = known.as_ref().and_then(|known| number(known, 2)).or_else(|| user.parse().ok());
        let own_group = match group {
            Some(group) => group.parse().ok(),
            None => known.as_ref().and_then(|known| number(known, 3)),
        };
        let name = known.as_ref().and_then(|known| known.first().copied());
        match (id, own_group) {
            (Some(user), Some(group)) => {
                let groups = name.map_or_else(Vec::new, |name| groups_of(name, groups));
                Ok(User { name: typed.to_owned(), identity: Identity { user, group, groups } })
            }
            (Some(_), None) => {
                Err(format!("the user `{typed}` has no known group: write `USER:GROUP`, both as numbers"))
            }
            (None, _) => {
                Err(format!("there is no user `{typed}`: expected a name in /etc/passwd, or numbers, `33:33`"))
            }
        }
    }
}

/// `name:x:number:member,member` for every group.
fn groups_of(user: &str, groups: &str) -> Vec<u32> {
    let lines = groups.lines().map(|line| line.split(':').collect::<Vec<_>>());
    let is_in =
        |fields: &Vec<&str>| fields.get(3).is_some_and(|members| members.split(',').any(|member| member == user));
    lines.filter(is_in).filter_map(|fields| fields.get(2)?.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_are_users() {
        let users = "root:x:0:0:root:/root:/bin/sh\nwww-data:x:33:34::/var/www:/bin/false\n";
        let groups = "adm:x:4:syslog,www-data\nssl:x:9:other\n";
        for (typed, expected) in [
            ("www-data", Some((33, 34, vec![4]))),
            ("33", Some((33, 34, vec![4]))),
            ("www-data:9", Some((33, 9, vec![4]))),
            ("65532:65532", Some((65532, 65532, vec![]))),
            ("root", Some((0, 0, vec![]))),
            ("65532", None),
            ("nobody-here", None),
            ("", None),
        ] {
            let found = User::find(typed, users, groups).ok().map(|user| user.identity);
            let found = found.map(|identity| (identity.user, identity.group, identity.groups));
            assert_eq!(found, expected, "{typed}");
        }
    }
}
