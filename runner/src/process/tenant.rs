//! The one organization that is served where functions are not kept from each other.

use std::sync::OnceLock;

/// Whose code runs here.
pub(crate) struct Tenant {
    only_one: bool,
    name: OnceLock<String>,
}

impl Tenant {
    pub(crate) fn new(only_one: bool) -> Tenant {
        Tenant { only_one, name: OnceLock::new() }
    }

    /// Lets an organization's code run, if no other's may have run before.
    ///
    /// # Errors
    /// What its owner is told.
    pub(crate) fn admit(&self, organization: &str) -> Result<(), String> {
        if !self.only_one || self.name.get_or_init(|| organization.to_owned()) == organization {
            return Ok(());
        }
        Err("this machine does not keep the functions of different organizations from each other \
             (isolation tier C or D), so it runs those of one only, and another's came first; use a \
             server on a machine with namespaces, or one of your own: dispatch manage check says \
             what is missing"
            .to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_one_is_served_the_second_is_refused() {
        let (many, one) = (Tenant::new(false), Tenant::new(true));
        for (organization, alone) in [("acme", true), ("evil", false), ("acme", true)] {
            assert_eq!(many.admit(organization), Ok(()));
            assert_eq!(one.admit(organization).is_ok(), alone);
        }
        assert!(!one.admit("evil").is_err_and(|message| message.contains("acme")));
    }
}
