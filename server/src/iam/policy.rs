//! Who may do what: a pure function, called from one place.

/// What a caller is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// May do everything.
    Admin,
    /// May read everything but the values of secrets.
    Viewer,
}

/// What a request wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Read resources.
    Read,
    /// Read the values of secrets.
    Reveal,
    /// Make, change, delete or run something.
    Write,
}

/// Whether a role may do something.
pub fn allows(role: Role, action: Action) -> bool {
    match role {
        Role::Admin => true,
        Role::Viewer => action == Action::Read,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_viewer_reads_and_nothing_else() {
        assert!(allows(Role::Viewer, Action::Read));
        assert!(!allows(Role::Viewer, Action::Reveal));
        assert!(!allows(Role::Viewer, Action::Write));
        for action in [Action::Read, Action::Reveal, Action::Write] {
            assert!(allows(Role::Admin, action));
        }
    }
}
