//! The follow graph, as plain data in memory.
//!
//! Users have unique, ascending numbers, and a walk goes in their order. A user added after the
//! start of a walk has a number above the walk's end. So a changing set never repeats or hides a
//! permanent member.

use std::{
    collections::{BTreeSet, HashMap},
    ops::Bound::{Excluded, Unbounded},
};

use fanfare_core::{
    follow::{Counts, Direction, Follow, GraphError, Page},
    user::User,
};

/// A user's number. Four bytes, because every edge has two.
type Id = u32;

/// A user with an edge.
struct UserNode {
    user: User,
    followers: BTreeSet<Id>,
    following: BTreeSet<Id>,
}

impl UserNode {
    fn set(&self, direction: Direction) -> &BTreeSet<Id> {
        match direction {
            Direction::Followers => &self.followers,
            Direction::Following => &self.following,
        }
    }
}

/// The edges, in both directions.
pub(super) struct EdgeStore {
    ids: HashMap<User, Id>,
    nodes: HashMap<Id, UserNode>,
    next_id: Id,
    /// The name of this numbering. A walk of another numbering gets an error.
    numbering: u32,
}

/// The position of a walk.
#[derive(Debug, PartialEq, Eq)]
struct PageWalk {
    numbering: u32,
    /// The first free number at the start of the walk.
    end: Id,
    last: Option<Id>,
}

impl PageWalk {
    /// Parses a position of [`Self::text`].
    fn parse(text: &str) -> Option<Self> {
        let mut numbers = text.split('-').map(|digits| u32::from_str_radix(digits, 16).ok());
        let (numbering, end, last) = (numbers.next()??, numbers.next()??, numbers.next()??);
        numbers.next().is_none().then_some(Self { numbering, end, last: Some(last) })
    }

    fn text(&self, last: Id) -> String {
        format!("{:x}-{:x}-{last:x}", self.numbering, self.end)
    }
}

impl EdgeStore {
    /// With a random `numbering`, a walk of an earlier process gets an error.
    pub fn new(numbering: u32) -> Self {
        Self { ids: HashMap::new(), nodes: HashMap::new(), next_id: 0, numbering }
    }

    /// Adds an edge. `true` if it is new.
    pub fn follow(&mut self, edge: &Follow) -> bool {
        // An edge needs up to two numbers.
        if self.next_id >= Id::MAX - 2 {
            self.renumber();
        }
        let (follower, author) = (self.intern(&edge.follower), self.intern(&edge.author));
        let is_new = self.node(author).followers.insert(follower);
        if is_new {
            self.node(follower).following.insert(author);
        }
        is_new
    }

    /// Removes an edge. `true` if it existed.
    pub fn unfollow(&mut self, edge: &Follow) -> bool {
        let ids = (self.ids.get(&edge.follower).copied(), self.ids.get(&edge.author).copied());
        let (Some(follower), Some(author)) = ids else { return false };
        let was_there = self.node(author).followers.remove(&follower);
        if was_there {
            self.node(follower).following.remove(&author);
            self.forget_without_edges(follower);
            self.forget_without_edges(author);
        }
        was_there
    }

    /// Whether the edge exists.
    pub fn has(&self, edge: &Follow) -> bool {
        let ids = (self.ids.get(&edge.follower), self.find(&edge.author));
        matches!(ids, (Some(follower), Some(author)) if author.followers.contains(follower))
    }

    /// The numbers of a user's followers and followed authors.
    pub fn counts(&self, user: &User) -> Counts {
        self.find(user).map_or_else(Counts::default, |node| Counts {
            followers: node.followers.len() as u64,
            following: node.following.len() as u64,
        })
    }

    /// One page of a walk: at least one user, at most `limit`, if any is left.
    ///
    /// # Errors
    /// [`GraphError::BadPage`] if `after` is invalid, or of another numbering.
    pub fn page(
        &self,
        user: &User,
        direction: Direction,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Page, GraphError> {
        let walk = match after {
            None => PageWalk { numbering: self.numbering, end: self.next_id, last: None },
            Some(text) => PageWalk::parse(text).ok_or(GraphError::BadPage)?,
        };
        if walk.numbering != self.numbering {
            return Err(GraphError::BadPage);
        }
        let Some(node) = self.find(user) else { return Ok(Page::default()) };
        let begin = walk.last.map_or(Unbounded, Excluded);
        let rest = node.set(direction).range((begin, Unbounded));
        // Users added after the start are left out: a removed and added user would come twice.
        let mut rest = rest.take_while(|id| **id < walk.end);
        let ids: Vec<Id> = rest.by_ref().take(limit.max(1)).copied().collect();
        let next = rest.next().and(ids.last()).map(|last| walk.text(*last));
        let names = ids.iter().filter_map(|id| self.nodes.get(id));
        Ok(Page { users: names.map(|node| node.user.clone()).collect(), next })
    }

    fn find(&self, user: &User) -> Option<&UserNode> {
        self.nodes.get(self.ids.get(user)?)
    }

    fn node(&mut self, id: Id) -> &mut UserNode {
        self.nodes.get_mut(&id).expect("every number of `ids` has a node")
    }

    fn intern(&mut self, user: &User) -> Id {
        if let Some(id) = self.ids.get(user) {
            return *id;
        }
        let id = self.next_id;
        self.next_id += 1;
        self.ids.insert(user.clone(), id);
        let (followers, following) = (BTreeSet::new(), BTreeSet::new());
        self.nodes.insert(id, UserNode { user: user.clone(), followers, following });
        id
    }

    fn forget_without_edges(&mut self, id: Id) {
        let is_bare = |node: &UserNode| node.followers.is_empty() && node.following.is_empty();
        if self.nodes.get(&id).is_some_and(is_bare)
            && let Some(node) = self.nodes.remove(&id)
        {
            self.ids.remove(&node.user);
            // A map never shrinks by itself. A shrink below an eighth is rare, so its cost per
            // removal is small.
            if self.nodes.len() < self.nodes.capacity() / 8 {
                self.nodes.shrink_to(self.nodes.len() * 2);
                self.ids.shrink_to(self.ids.len() * 2);
            }
        }
    }

    /// Gives all users new numbers, without holes: once per four billion new users. Ends all walks.
    fn renumber(&mut self) {
        let mut old: Vec<Id> = self.nodes.keys().copied().collect();
        old.sort_unstable();
        let new_id = |id: &Id| old.partition_point(|before| before < id) as Id;
        let renumbered = |set: &BTreeSet<Id>| set.iter().map(new_id).collect();
        let nodes = self.nodes.iter().map(|(id, node)| {
            let (followers, following) = (renumbered(&node.followers), renumbered(&node.following));
            (new_id(id), UserNode { user: node.user.clone(), followers, following })
        });
        self.nodes = nodes.collect();
        self.ids = self.nodes.iter().map(|(id, node)| (node.user.clone(), *id)).collect();
        self.next_id = old.len() as Id;
        self.numbering = self.numbering.wrapping_add(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn edge(follower: &str, author: &str) -> Follow {
        let user = |name| User::parse(name).unwrap();
        Follow { follower: user(follower), author: user(author) }
    }

    fn names(page: &Page) -> Vec<&str> {
        page.users.iter().map(User::as_str).collect()
    }

    #[test]
    fn users_without_edges_are_forgotten() {
        let mut graph = EdgeStore::new(1);
        for number in 0..10_000 {
            assert!(graph.follow(&edge(&format!("f{number}"), "a")));
        }
        for number in 0..10_000 {
            assert!(graph.unfollow(&edge(&format!("f{number}"), "a")));
            assert!(!graph.unfollow(&edge(&format!("f{number}"), "a")));
        }
        assert!(graph.nodes.is_empty() && graph.ids.is_empty());
        assert!(graph.nodes.capacity() < 100 && graph.ids.capacity() < 100);
    }

    #[test]
    fn whoever_was_forgotten_and_comes_back_is_not_met_twice_in_a_walk() {
        let mut graph = EdgeStore::new(1);
        for follower in ["b", "c", "d"] {
            graph.follow(&edge(follower, "a"));
        }
        let a = User::parse("a").unwrap();
        let first = graph.page(&a, Direction::Followers, None, 1).unwrap();
        assert_eq!(names(&first), ["b"]);
        graph.unfollow(&edge("b", "a"));
        graph.follow(&edge("b", "a"));
        let rest = graph.page(&a, Direction::Followers, first.next.as_deref(), 10).unwrap();
        assert_eq!(names(&rest), ["c", "d"]);
        assert_eq!(rest.next, None);
    }

    #[test]
    fn when_the_numbers_are_used_up_everybody_is_numbered_anew() {
        let mut graph = EdgeStore::new(u32::MAX);
        for follower in ["b", "c", "d"] {
            graph.follow(&edge(follower, "a"));
        }
        graph.unfollow(&edge("c", "a"));
        let a = User::parse("a").unwrap();
        let old = graph.page(&a, Direction::Followers, None, 1).unwrap();
        graph.next_id = Id::MAX - 2;
        assert!(graph.follow(&edge("e", "a")));
        assert!(!graph.follow(&edge("b", "a")));
        assert_eq!(graph.next_id, 4);
        let page = graph.page(&a, Direction::Followers, None, 10).unwrap();
        assert_eq!(names(&page), ["b", "d", "e"]);
        assert_eq!(graph.counts(&a), Counts { followers: 3, following: 0 });
        let ended = graph.page(&a, Direction::Followers, old.next.as_deref(), 1);
        assert!(matches!(ended, Err(GraphError::BadPage)));
    }
}
