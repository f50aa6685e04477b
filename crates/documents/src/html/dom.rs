//! The parsed tree as one array in document order: a subtree is a range, so that every walk is a loop.

use docmill_model::{Code, Failure};
use scraper::{Html, Node as Parsed, node::Element};
use std::collections::HashMap;

/// What a node is; comments and declarations are left out.
#[derive(Clone, Copy, Debug)]
pub(super) enum Data<'a> {
    /// The document or fragment itself.
    Root,
    /// An element.
    Element(&'a Element),
    /// Characters.
    Text(&'a str),
}

/// One node.
#[derive(Clone, Copy, Debug)]
pub(super) struct Node<'a> {
    /// Index of the parent (the root is its own).
    pub parent: u32,
    /// One past the last index of the subtree.
    pub end: u32,
    /// Which of the parent's children of this name it is, from 1.
    pub nth: u32,
    /// What it is.
    pub data: Data<'a>,
}

/// All nodes in document order; index 0 is the root.
#[derive(Debug)]
pub(super) struct Dom<'a> {
    nodes: Vec<Node<'a>>,
}

impl<'a> Dom<'a> {
    /// Flattens a parsed tree.
    ///
    /// # Errors
    /// [`Code::DepthLimit`] when an element lies deeper than `limit`.
    pub fn build(html: &'a Html, limit: u64) -> Result<Self, Failure> {
        let mut nodes = vec![Node { parent: 0, end: 0, nth: 1, data: Data::Root }];
        let mut frames = vec![(0u32, html.tree.root().first_child(), HashMap::<&str, u32>::new())];
        while let Some((parent, next, counts)) = frames.last_mut() {
            let parent = *parent;
            let Some(node) = *next else {
                let end = nodes.len() as u32;
                nodes[parent as usize].end = end;
                frames.pop();
                continue;
            };
            *next = node.next_sibling();
            let index = nodes.len() as u32;
            match node.value() {
                Parsed::Element(element) => {
                    let nth = counts.entry(element.name()).and_modify(|n| *n += 1).or_insert(1);
                    nodes.push(Node { parent, end: index + 1, nth: *nth, data: Data::Element(element) });
                    if frames.len() as u64 > limit {
                        let measured = frames.len() as u64;
                        return Err(Failure::limit(Code::DepthLimit, "elements nest too deeply", limit, measured));
                    }
                    frames.push((index, node.first_child(), HashMap::new()));
                }
                Parsed::Text(text) => nodes.push(Node { parent, end: index + 1, nth: 1, data: Data::Text(text) }),
                _ => {}
            }
        }
        Ok(Self { nodes })
    }

    /// Number of nodes.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// The node at `index`.
    pub fn node(&self, index: usize) -> Node<'a> {
        self.nodes[index]
    }

    /// The element at `index`, if it is one.
    pub fn element(&self, index: usize) -> Option<&'a Element> {
        match self.nodes[index].data {
            Data::Element(element) => Some(element),
            _ => None,
        }
    }

    /// Lower-case tag name, or the empty string for other nodes.
    pub fn name(&self, index: usize) -> &'a str {
        self.element(index).map_or("", Element::name)
    }

    /// An attribute of the element at `index`.
    pub fn attr(&self, index: usize, name: &str) -> Option<&'a str> {
        self.element(index).and_then(|element| element.attr(name))
    }

    /// One past the subtree of `index`.
    pub fn end(&self, index: usize) -> usize {
        self.nodes[index].end as usize
    }

    /// The parent, or `None` for the root.
    pub fn parent(&self, index: usize) -> Option<usize> {
        (index != 0).then(|| self.nodes[index].parent as usize)
    }

    /// Indices of the children.
    pub fn children(&self, index: usize) -> impl Iterator<Item = usize> + '_ {
        let end = self.end(index);
        let mut next = index + 1;
        std::iter::from_fn(move || {
            let child = (next < end).then_some(next)?;
            next = self.end(child);
            Some(child)
        })
    }

    /// The node itself and its ancestors, inside out.
    pub fn lineage(&self, index: usize) -> impl Iterator<Item = usize> + '_ {
        std::iter::successors(Some(index), |&at| self.parent(at))
    }

    /// All characters below `index`, as written.
    pub fn text(&self, index: usize) -> String {
        let pieces = (index..self.end(index)).filter_map(|at| match self.nodes[at].data {
            Data::Text(text) => Some(text),
            _ => None,
        });
        pieces.collect()
    }

    /// `html/body/div[2]/p[1]`: names with their number among siblings of that name.
    pub fn path(&self, index: usize) -> String {
        let mut steps: Vec<String> = Vec::new();
        for at in self.lineage(index) {
            let Some(element) = self.element(at) else { continue };
            steps.push(match element.name() {
                name @ ("html" | "body") => name.to_owned(),
                name => format!("{name}[{}]", self.nodes[at].nth),
            });
        }
        steps.reverse();
        steps.join("/")
    }
}
