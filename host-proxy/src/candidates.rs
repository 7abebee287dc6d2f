//! Statements that gather signatures until one of them has enough.
//!
//! Several may be under way: amendments of one manifest, or abandonments of one
//! offer whose approvers chose other words. Each party backs one of them, the one
//! that it brought last, and what nobody backs any more is forgotten. So there
//! are at most as many as parties, and no party takes away what others signed.

use crate::store::Store;
use sealfold_protocol::refusal::Refusal;
use sealfold_protocol::{Digest, MultiSigned, Statement, VerifyingKey};
use std::collections::BTreeMap;

/// The statements under way.
#[derive(Debug)]
pub struct Candidates<T> {
    /// By digest.
    statements: BTreeMap<Digest, MultiSigned<T>>,
    /// Which of them each party backs.
    backed: BTreeMap<VerifyingKey, Digest>,
}

impl<T> Default for Candidates<T> {
    fn default() -> Self {
        Self { statements: BTreeMap::new(), backed: BTreeMap::new() }
    }
}

impl<T: Statement + Clone> Candidates<T> {
    /// All of them, by digest.
    pub fn iter(&self) -> impl Iterator<Item = &MultiSigned<T>> {
        self.statements.values()
    }

    /// One of them.
    #[must_use]
    pub fn get(&self, digest: &Digest) -> Option<&MultiSigned<T>> {
        self.statements.get(digest)
    }

    /// A party that backs one of them.
    #[must_use]
    pub fn backer(&self, digest: &Digest) -> Option<VerifyingKey> {
        self.backed.iter().find(|(_, backed)| *backed == digest).map(|(key, _)| *key)
    }

    /// The one that has enough signatures.
    #[must_use]
    pub fn approved(&self, approvers: &[VerifyingKey], required: usize) -> Option<&MultiSigned<T>> {
        self.iter().find(|statement| statement.expect_approvals(approvers, required).is_ok())
    }

    /// Notes that a party backs a statement now, and no other.
    ///
    /// # Errors
    /// If there are too many signatures.
    pub fn back(
        &mut self,
        by: VerifyingKey,
        statement: &MultiSigned<T>,
    ) -> sealfold_protocol::Result<()> {
        let digest = statement.digest();
        let merged = self.joined(statement)?;
        self.statements.insert(digest, merged);
        self.backed.insert(by, digest);
        let backed: Vec<_> = self.backed.values().collect();
        self.statements.retain(|digest, _| backed.contains(&digest));
        Ok(())
    }

    /// The statement with all the signatures that it has by now.
    fn joined(&self, statement: &MultiSigned<T>) -> sealfold_protocol::Result<MultiSigned<T>> {
        let Some(known) = self.get(&statement.digest()) else { return Ok(statement.clone()) };
        let mut merged = known.clone();
        merged.merge(statement)?;
        Ok(merged)
    }

    /// As [`Candidates::back`], once the store has it: under the prefix and the
    /// party's key. Returns the statement with all its signatures.
    ///
    /// # Errors
    /// A refusal by `storage`.
    pub async fn keep(
        &mut self,
        store: &Store,
        prefix: &str,
        by: VerifyingKey,
        statement: &MultiSigned<T>,
    ) -> Result<MultiSigned<T>, Refusal> {
        let merged = self.joined(statement)?;
        // What the party backed before may hold signatures that are in no other
        // file yet.
        let before = self.backed.get(&by).filter(|before| **before != merged.digest());
        let mut others = self.backed.iter().filter(|(key, _)| **key != by);
        if let Some(before) = before
            && let Some((heir, _)) = others.find(|(_, backed)| *backed == before)
            && let Some(left) = self.get(before)
        {
            store.put(&format!("{prefix}{heir}"), left.envelope()?).await?;
        }
        store.put(&format!("{prefix}{by}"), merged.envelope()?).await?;
        self.back(by, &merged)?;
        Ok(merged)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sealfold_protocol::SigningKey;
    use sealfold_protocol::abandonment::Abandonment;

    fn key(i: u8) -> SigningKey {
        SigningKey::from_seed(&[i; 32]).unwrap()
    }

    fn said(words: &str, by: &[u8]) -> MultiSigned<Abandonment> {
        let (study, offer) = (Digest::new([1; 32]), Digest::new([2; 32]));
        let statement = Abandonment { study, round: 1, offer, reason: words.to_owned() };
        let mut signed = MultiSigned::sign(statement, &key(by[0])).unwrap();
        by[1..].iter().for_each(|i| signed.add_signature(&key(*i)).unwrap());
        signed
    }

    async fn read(store: &Store) -> Candidates<Abandonment> {
        let mut candidates = Candidates::default();
        for name in store.list("under-way").await.unwrap() {
            let bytes = store.get(&format!("under-way/{name}")).await.unwrap().unwrap();
            let statement = MultiSigned::open(&bytes).unwrap();
            candidates.back(name.parse().unwrap(), &statement).unwrap();
        }
        candidates
    }

    #[tokio::test]
    async fn no_party_takes_away_what_others_signed() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::folder(folder.path()).unwrap();
        let mut candidates = Candidates::default();
        let keys: Vec<_> = (0..5).map(|i| key(i).verifying_key()).collect();
        let steps: [(u8, &str); 7] =
            [(1, "a"), (2, "a"), (4, "x"), (1, "b"), (4, "y"), (4, "z"), (3, "a")];
        for (by, words) in steps {
            let party = keys[usize::from(by)];
            let statement = said(words, &[by]);
            let prefix = "under-way/";
            let _ = candidates.keep(&store, prefix, party, &statement).await.unwrap();
            // A crash after any step loses nothing.
            candidates = read(&store).await;
        }
        let mut words: Vec<_> = candidates.iter().map(|c| &*c.statement().reason).collect();
        words.sort_unstable();
        assert_eq!(words, ["a", "b", "z"]);
        // The first has moved on, and its signature stays.
        let won = candidates.approved(&keys, 3).unwrap();
        assert_eq!((won.statement().reason.as_str(), won.signers().len()), ("a", 3));
        assert!(candidates.approved(&keys, 4).is_none());
        assert_eq!(candidates.backer(&said("b", &[1]).digest()), Some(keys[1]));
        assert_eq!(candidates.backer(&said("x", &[4]).digest()), None);
    }
}
