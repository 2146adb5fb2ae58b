-- One row. It changes with each transaction that removes blobs or ends their hold.
CREATE TABLE blob_epoch (epoch bigint NOT NULL);
INSERT INTO blob_epoch (epoch) VALUES (0);
