-- Version 5: how often blobs went.

-- One row. It changes with each transaction that removes blobs or ends their hold.
CREATE TABLE blob_epoch (epoch INTEGER NOT NULL);
INSERT INTO blob_epoch (epoch) VALUES (0);
